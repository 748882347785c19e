"""The backends that ours and the floors are measured on: one file for each, which holds no code of the relay."""
