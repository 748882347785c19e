"""What the sink and the source of one system share: connection keys, making a client, the table of its errors."""
