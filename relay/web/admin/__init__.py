"""The admin API: JSON around `relay.operations`, for people on duty and their programs.

- `app.py`: the application: routes, health, documentation
- `auth.py`: bearer tokens, full and read-only
- `errors.py`: one shape of errors
- `sessions.py`: the sessions of the process
- `server.py`: the address that it is served on
- one file for each resource
"""
