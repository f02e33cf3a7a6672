"""Holds one thread of a process still, as a kernel that does not answer it would, until this program ends.

Says "held" when the thread stands still. Usage: held_thread.py TID
"""

import ctypes
import os
import sys

PTRACE_ATTACH = 16
WALL = 0x40000000

tid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(PTRACE_ATTACH, tid, None, None) != 0:
    sys.exit("ptrace: %s" % os.strerror(ctypes.get_errno()))
os.waitpid(tid, WALL)
print("held", flush=True)
# The end of the thread is told to this process alone; until it has heard of it, the process of the thread is not gone.
while True:
    _, status = os.waitpid(tid, WALL)
    if os.WIFEXITED(status) or os.WIFSIGNALED(status):
        sys.exit(0)
