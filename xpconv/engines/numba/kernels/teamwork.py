"""One job at a time, shared by a team of waiting threads; `engines/numba/team.py` makes the threads and the board.

The *board* is an array of 64-bit words. A job is opened by one store to WORD, which holds, from the top: the job's
number, whether it may still be joined, how many threads may join, and how many have. A thread joins by adding one,
so that the submitter knows whom to wait for: only those who came, and nobody who is late to a short job.
Waiting threads look at WORD for a while, then park on a lock; the submitter wakes as many as it wants.

A system that has been busy may wake a thread on the very CPU that the submitter keeps busy, although another is idle,
and let the two take turns there for some ten milliseconds. So a member that parked on the submitter's CPU is woken with
that CPU taken off its set, which it puts back as soon as it runs.
"""

from __future__ import annotations

from numba import njit

from xpconv.engines.numba.board import (
    ACQUIRE,
    ALLOWED,
    ARGS,
    BUSY,
    CPU,
    CPU_SET,
    ELSEWHERE,
    GET_AFFINITY,
    GET_CPU,
    KERNEL,
    LINE,
    LOCK,
    MEMBER,
    MEMBERS,
    MOVED,
    NEXT,
    PARKED,
    QUIT,
    RELEASE,
    SELF,
    SET_AFFINITY,
    SPINS,
    TASKS,
    TEAM,
    THREAD,
    WORD,
    YIELD,
)
from xpconv.engines.numba.kernels.atomics import (
    acquire,
    add,
    ask,
    ask_affinity,
    call_kernel,
    exchange,
    load,
    relax,
    release,
    replace,
    store,
)
from xpconv.engines.numba.kernels.memory import words

_OPEN = 1 << 31
_COUNT = (1 << 16) - 1


@njit
def _take_tasks(kernel, args, board, tasks, slot):
    while True:
        task = add(board, NEXT, 1)
        if task >= tasks:
            return
        call_kernel(kernel, args, task, slot)


@njit
def _send_elsewhere(board, me):
    """See to it that a parked member does not wake on this CPU, if it may run on others."""
    thread = board[me + THREAD]
    if board[GET_CPU] == 0 or thread == 0:  # to the system, 0 is whoever asks
        return
    cpu = ask(board[GET_CPU])
    if cpu != board[me + CPU] or cpu < 0 or cpu >= 8 * CPU_SET:
        return
    allowed, elsewhere = board[SELF] + 8 * (me + ALLOWED), board[SELF] + 8 * (me + ELSEWHERE)
    if ask_affinity(board[GET_AFFINITY], thread, CPU_SET, allowed) != 0:
        return
    others = 0
    for i in range(LINE):
        word = board[me + ALLOWED + i]
        if i == cpu >> 6:
            word &= ~(1 << (cpu & 63))
        board[me + ELSEWHERE + i] = word
        others |= word
    if others != 0 and ask_affinity(board[SET_AFFINITY], thread, CPU_SET, elsewhere) == 0:
        board[me + MOVED] = 1


@njit
def _come_back(board, me):
    """Once awake: let this thread run wherever it could before."""
    if board[me + MOVED] != 0:
        board[me + MOVED] = 0
        ask_affinity(board[SET_AFFINITY], 0, CPU_SET, board[SELF] + 8 * (me + ALLOWED))


def serve():
    """A member of the team: wait for a job, join it, help, and again; until told to quit."""

    def kernel(board, index, unused):
        me = MEMBERS + index * MEMBER
        seen = 0
        waited = 0
        while load(board, QUIT) == 0:
            word = load(board, WORD)
            number = word >> 32
            if (word & _OPEN) != 0 and number != seen:
                count, limit = word & _COUNT, (word >> 16) & 0x7FFF
                if count >= limit:
                    seen = number
                elif replace(board, WORD, word, word + 1):
                    # Who comes after another has left finds no task, so that no two threads work in one slot.
                    _take_tasks(board[KERNEL], words(board[ARGS]), board, board[TASKS], count + 1)
                    add(board, WORD, -1)
                    seen = number
                waited = 0
                continue
            waited += 1
            relax()
            if waited < SPINS:
                continue
            waited = 0
            if board[GET_CPU] != 0:
                board[me + CPU] = ask(board[GET_CPU])
            store(board, me + PARKED, 1)
            word = load(board, WORD)
            fresh = ((word & _OPEN) != 0 and (word >> 32) != seen) or load(board, QUIT) != 0
            if fresh and exchange(board, me + PARKED, 0) == 1:
                continue
            acquire(board[ACQUIRE], board[me + LOCK])
            _come_back(board, me)

    return kernel


@njit
def _submit(args):
    """Do a job: ``args`` holds the board's address, the kernel's, the tasks, the threads wanted, then the kernel's own.

    With one task or thread, or while another thread's job has the team, the caller does it alone.
    """
    board, job, tasks, threads = words(args[0]), args[1], args[2], args[3]
    own = words(args[4])
    helpers = min(threads, tasks) - 1
    if helpers < 1 or exchange(board, BUSY, 1) != 0:
        for task in range(tasks):
            call_kernel(job, own, task, 0)
        return
    board[KERNEL], board[ARGS], board[TASKS] = job, args[4], tasks
    store(board, NEXT, 0)
    number = (load(board, WORD) >> 32) + 1
    if number >= 0x7FFFFFFF:
        number = 1
    store(board, WORD, (number << 32) | _OPEN | (helpers << 16))
    woken = 0
    for i in range(board[TEAM]):
        if woken < helpers:
            me = MEMBERS + i * MEMBER
            if load(board, me + PARKED) == 1 and exchange(board, me + PARKED, 0) == 1:
                _send_elsewhere(board, me)
                release(board[RELEASE], board[me + LOCK])
            woken += 1
    _take_tasks(job, own, board, tasks, 0)
    while True:
        word = load(board, WORD)
        if replace(board, WORD, word, word & ~_OPEN):
            break
    waited = 0
    while (load(board, WORD) & _COUNT) != 0:
        relax()
        waited += 1
        if waited >= SPINS and board[YIELD] != 0:  # who is awaited may be waiting for this CPU
            ask(board[YIELD])
    store(board, BUSY, 0)


def submit():
    """Do a job."""

    def kernel(args, unused, also_unused):
        _submit(args)

    return kernel


def submit_all():
    """Do some jobs one after the other: ``args`` holds the addresses of what `submit` is given."""

    def kernel(args, jobs, unused):
        for i in range(jobs):
            _submit(words(args[i]))

    return kernel
