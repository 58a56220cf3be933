"""How orders reach this process and what it says back: through a supervisor, or over the buses."""
