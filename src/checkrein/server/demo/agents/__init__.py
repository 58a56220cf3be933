"""Agents as people write them: each a program of its own; most know nothing of Checkrein.

They take their models from the environment (`OPENAI_BASE_URL`, `ANTHROPIC_BASE_URL`, keys), so the
same file runs against a real provider. The pact of each stands beside it.
"""
