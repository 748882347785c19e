"""`relay api`: receives webhooks over HTTP, writes them to inboxes. Any number of processes; none remembers anything.

hooks.py    which pipelines receive, read from the database and kept up to date
reception.py  one request: read, check who sent it, decode, hand to the writer, answer
writer.py   many requests, one commit
server.py   uvicorn around it, and what machines ask: health, readiness, metrics
"""
