"""`checkrein hook`: what coding agents start before and after each of their calls.

A hook is a process for every call, so what runs here imports nothing but the standard library, and
little of that.
"""
