"""Checkrein."""
