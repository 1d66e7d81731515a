"""Where the words of a team's board are, a cache line for each hot one; `kernels/teamwork.py` says what they are."""

LINE = 16  # words: two cache lines, since cores fetch them in pairs

WORD = 0
NEXT = LINE
KERNEL, ARGS, TASKS = 2 * LINE, 2 * LINE + 1, 2 * LINE + 2
BUSY = 3 * LINE
QUIT = 4 * LINE
ACQUIRE, RELEASE, TEAM = 5 * LINE, 5 * LINE + 1, 5 * LINE + 2
MEMBERS = 6 * LINE  # a line for each member of the team:
PARKED, LOCK = 0, 1

SPINS = 4000  # looks at the board before a thread parks: some 50 µs, longer than Python takes from one op to the next
