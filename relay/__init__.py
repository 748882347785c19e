"""tide-relay moves messages between PostgreSQL and the world, and loses none.

The words, each used for one thing everywhere (tables, modules, queues, metrics, verbs):

outbox          a named append-only log of messages, written by applications in their own transactions
inbox           a table of received messages, one row per event id
pipeline        a configured flow: forward (outbox to sink) or reverse (source to inbox)
consumer group  a named cursor over one outbox; its offset is the id up to which every message is settled
horizon         the id up to which an outbox is complete: no open transaction can add a message at or below it
bell            the flag by which a sleeping consumer group asks publishers to NOTIFY
owner, epoch    the scheduler that holds a pipeline's advisory lock; the fencing number of that ownership
drain           one piece of work, "drain pipeline P under epoch E"; its slice bounds it, its lease guards it
settle          write in one transaction what became of a batch: offset, dead letters, counters
"""

__version__ = "0.1.0"
