"""Stops one thread of a process, like a system call that does not return, until this program ends.

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
# Only this process is notified of the end of the thread; until it has read that, the thread's process is not gone.
while True:
    _, status = os.waitpid(tid, WALL)
    if os.WIFEXITED(status) or os.WIFSIGNALED(status):
        sys.exit(0)
