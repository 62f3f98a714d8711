"""What the stages of a voice conversation have in common: who speaks, what was heard, what is known of a turn."""
