"""Programs to be stopped: each in one of the states in which nothing inside a process helps."""

STATES = {
    "busy": "while True: pass",
    "sleep": "import time; time.sleep(600)",
    "blocking read": "import os; r, w = os.pipe(); os.read(r, 1)",
    "subprocess": "import subprocess; subprocess.run(['sleep', '600'])",
    "lock": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "regex in C": "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
    "swallows everything": (
        "import time\nwhile True:\n    try:\n        time.sleep(0.01)\n"
        "    except BaseException:\n        pass"
    ),
    "asyncio": "import asyncio; asyncio.run(asyncio.sleep(600))",
    "sync in loop": ("import asyncio, time\nasync def go(): time.sleep(600)\nasyncio.run(go())"),
    "to_thread": ("import asyncio, time\nasyncio.run(asyncio.to_thread(time.sleep, 600))"),
    "ignores signals": (
        "import signal, time\n"
        "for n in (1, 2, 3, 10, 12, 15, 20): signal.signal(n, signal.SIG_IGN)\n"
        "while True: time.sleep(1)"
    ),
}

CHILDREN = {
    "plain": (
        "import subprocess, time; subprocess.Popen(['sleep', '600']); {ready}; time.sleep(600)"
    ),
    "setsid": (
        "import subprocess, time; subprocess.Popen(['sleep', '600'], start_new_session=True);"
        "{ready}; time.sleep(600)"
    ),
    "double fork": (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        os.execvp('sleep', ['sleep', '600'])\n"
        "    os._exit(0)\n"
        "os.wait()\n{ready}\ntime.sleep(600)"
    ),
}

CANARY = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while True:
    os.write(fd, b"%d\\n" % time.monotonic_ns())
"""

RELAY = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
end = time.monotonic() + 50  # a relay that a failed test did not catch ends by itself
while time.monotonic() < end:
    until = time.monotonic() + 0.0005
    while time.monotonic() < until:
        os.write(fd, b"x")
    if os.fork():
        os._exit(0)
    os.setsid()
"""

UNDERTAKER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork() == 0:
    os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
while True:
    os.waitpid(-1, 0)
"""
"""Becomes the subreaper of the program that it is given, and buries at once whoever ends."""
