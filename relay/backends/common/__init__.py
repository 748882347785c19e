"""What several backends need: the meaning of errors, batches, deadlines, TLS, types of keys, Amazon's services."""
