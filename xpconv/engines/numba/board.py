"""Where the words of a team's board are, a cache line for each hot one; `kernels/teamwork.py` says what they are."""

LINE = 16  # words: two cache lines, since cores fetch them in pairs

WORD = 0
NEXT = LINE
KERNEL, ARGS, TASKS = 2 * LINE, 2 * LINE + 1, 2 * LINE + 2
BUSY = 3 * LINE
QUIT = 4 * LINE
ACQUIRE, RELEASE, TEAM, SELF = 5 * LINE, 5 * LINE + 1, 5 * LINE + 2, 5 * LINE + 7
# Functions of the system, 0 where it has none: which CPU this is, where a thread may run, and to let others run.
GET_CPU, GET_AFFINITY, SET_AFFINITY, YIELD = 5 * LINE + 3, 5 * LINE + 4, 5 * LINE + 5, 5 * LINE + 6
MEMBERS = 6 * LINE
MEMBER = 3 * LINE  # of each member of the team: a line of words, and two sets of CPUs
PARKED, LOCK, THREAD, CPU, MOVED, ALLOWED, ELSEWHERE = 0, 1, 2, 3, 4, LINE, 2 * LINE
CPU_SET = 8 * LINE  # bytes: 1024 CPUs

SPINS = 4000  # looks at the board before a thread parks: some 50 µs, longer than Python takes from one op to the next
