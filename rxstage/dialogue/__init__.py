"""How a stage holds a conversation with a model: turns, calls, rounds of tools, structured answers."""
