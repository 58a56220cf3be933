"""Closing the ways around: a program that can reach its supervisor and the gateway, and nothing
else.

    able      what this machine can do
    plan      what a program may touch, as data; made by the supervisor
    enter     the walls, put up in the child between fork and exec, and tried from inside
    door      the supervisor's end: every `connect` of the program is made here, or refused
    relay     the gateway's port inside a network namespace that has nothing else
"""
