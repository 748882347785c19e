"""The programs of the systems that are compared, ours among them. Each runs in an environment of its own.

`program.py` says which commands they obey; `program.mjs` says it again for those of Node.js.
"""
