"""A scripted model server and agents that misbehave against it: what `checkrein demo` shows."""
