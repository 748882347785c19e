-- The tables of tide-relay, by topic: outboxes, consumer groups, inboxes, pipelines and their drains, dead letters and
-- replays, retention, tables as outboxes, settings, permissions. The protocols are explained in functions/ and in
-- ARCHITECTURE.md. The schema tide, tide.migration and tide.function_file exist before: relay migrate creates them.
--
-- Rows that are updated all the time have room beside them (fillfactor) and are vacuumed often and at once: HOT updates
-- stay on their page.

-- The names and arguments of pg_trickle; see functions/pgtrickle.sql.
create schema pgtrickle;
revoke all on schema pgtrickle from public;
-- A view of each outbox, to publish with INSERT; see functions/outbox_views.sql.
create schema tide_outbox;
revoke all on schema tide_outbox from public;

-- Outboxes ------------------------------------------------------------------------------------------------------------

create table tide.outbox (
    outbox_id         int generated always as identity primary key,
    name              text not null unique,
    kind              text not null default 'messages' check (kind in ('messages', 'jobs')),
    enabled           boolean not null default true,
    retention_hours   int not null default 24 check (retention_hours >= 0),
    max_payload_bytes int not null default 1048576 check (max_payload_bytes between 1 and 268435456),
    partition_size    bigint not null default 1000000 check (partition_size between 1000 and 1000000000),
    partitions_end    bigint not null default 0,
    ids               regclass not null,
    bell              regclass,
    created_at        timestamptz not null default now(),
    guarded           boolean not null default false,
    -- Up to this id nothing is stored: while it is the last one, retention does not look. See tide.outbox_retained.
    retained_id       bigint not null default 0,
    -- When the oldest message that is stored was published, as far as retention knows: until that is old it does not look. Null: not known.
    oldest_at         timestamptz,
    -- What the mark of a publisher needs, made once: see functions/publish.sql.
    mark_class        int not null generated always as (1952670720 + outbox_id % 1000000) stored,
    mark_setting      text not null generated always as ('tide.inflight_' || outbox_id::text) stored,
    -- The table that holds what is published, below tide.message or tide.job; its own partitions are log_<first id>.
    log               text not null generated always as (case kind when 'jobs' then 'job_' else 'message_' end || outbox_id::text) stored,
    check (name ~ case kind when 'jobs' then '^jobs/[A-Za-z0-9_][A-Za-z0-9_.-]{0,94}$' else '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$' end)
);
comment on column tide.outbox.kind is 'What it holds. One of jobs is called jobs/<queue> and is a queue: see tide.job_queue.';
comment on column tide.outbox.partition_size is 'Ids per partition of tide.message; see tide.outbox_extend.';
comment on column tide.outbox.partitions_end is 'The first id above its range partitions, kept by tide.attach_partition: catalogs are not read to see whether the next is due.';
comment on column tide.outbox.ids is 'The sequence that numbers the messages. CACHE 1: the horizon depends on it.';
comment on column tide.outbox.bell is 'What publishers look at, as a sequence: see functions/bells.sql.';
comment on column tide.outbox.guarded is 'Whether a publish asks for the right to this outbox; see tide.outbox_grant_publish.';

-- Three levels: a hundred outboxes (tide.log_parent), one outbox, partition_size ids of it. Who opens a partitioned table sets up all
-- its partitions: of 10,000 outboxes in one list, each new session would set up 10,000 tables for its first message.
--
-- No primary key and no column that is NOT NULL: since PostgreSQL 18 each is a row of pg_constraint for each table, and PostgreSQL reads
-- all of pg_constraint for each partition that is attached. The functions that write here write no null. The same for jobs.
create table tide.message (
    outbox_id  int,
    id         bigint,
    created_at timestamptz default clock_timestamp(),
    size       int,
    key        text,
    headers    jsonb,
    payload    jsonb
) partition by range (outbox_id);
create unique index message_id on tide.message (outbox_id, id);
comment on column tide.message.size is
    'Bytes of payload and headers as text, and of the key: readers bound their memory by it. Null: see tide.message_size.';

-- The locks in the classes of marks, and whether they are marks. Any role that may connect can take an advisory lock, but only
-- a publisher has a lock on tide.outbox as well, or writes tide.message: its statement takes that one first, and keeps it as long. PostgreSQL reads
-- the locks on tables, in part, a moment before the others, so a mark may be seen without it: but then the mark is younger
-- than the reader's last id, which was read still before, and all its ids lie above. While PREPARE TRANSACTION hands a
-- transaction's locks over, one by one, the two may be seen apart: so one of a prepared transaction vouches for all.
create view tide.mark as
    with held as materialized (
        select l.locktype, l.classid::bigint::int as class, l.objid::bigint as key, l.pid, l.virtualtransaction
          from pg_locks l
         where l.granted and l.database = (select d.oid from pg_database d where d.datname = current_database())
           and (l.locktype = 'advisory' and l.objsubid = 2 and l.classid::bigint between 1952670720 and 1953670719
                or l.locktype = 'relation' and (l.relation = 'tide.outbox'::regclass
                                                or l.relation = 'tide.message'::regclass and l.mode = 'RowExclusiveLock'))
    )
    select h.class, h.key, h.pid, h.virtualtransaction,
           h.pid is null
           or h.pid in (select r.pid from held r where r.locktype = 'relation' and r.pid is not null)
           or exists (select from held r where r.locktype = 'relation' and r.pid is null) as publishes
      from held h
     where h.locktype = 'advisory';
comment on view tide.mark is 'The advisory locks of publishers, and those that only look like them (publishes: false).';

create table tide.publish_guard (
    guarded_since timestamptz not null default now()
);
create unique index publish_guard_is_one_row on tide.publish_guard ((true));
comment on table tide.publish_guard is 'One row since a role has had the right to a single outbox.';

-- Consumer groups -----------------------------------------------------------------------------------------------------

create table tide.consumer_group (
    group_id  int generated always as identity primary key,
    outbox_id int not null references tide.outbox,
    name      text not null check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$'),
    offset_id bigint not null default 0,
    polled    boolean not null default false,
    -- A group that is read in lanes has a row for each, so that all that is known of a group is known of a lane. See functions/lanes.sql.
    lane      int not null default 0 check (lane >= 0),
    lane_of   int references tide.consumer_group on delete cascade,
    head_id   int not null generated always as (coalesce(lane_of, group_id)) stored,
    lanes     int not null default 1 check (lanes between 1 and 64),
    past      jsonb not null default '[]',
    unique (outbox_id, name, lane),
    unique (head_id, lane),
    check ((lane = 0) = (lane_of is null)),
    check (lane < lanes)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
-- A polled group is called by its name alone.
create unique index consumer_group_polled on tide.consumer_group (name) where polled;
comment on column tide.consumer_group.offset_id is 'Every message up to this id is settled: delivered or a dead letter.';
comment on column tide.consumer_group.lane is 'Which lane of the group this row is; the group itself is lane 0.';
comment on column tide.consumer_group.past is
    'How the group was read before: lanes, and the offset of each. What was settled then lies above offset_id, and is passed over.';
comment on column tide.consumer_group.polled is 'Whether consumers poll it with tide.poll_outbox; no pipeline reads such a group.';

-- What the groups of an outbox want; publishers look at tide.outbox.bell, which follows. A table of its own: who enqueues jobs
-- reads it, so it must not carry the dead versions that offsets leave behind.
create table tide.bell (
    group_id  int primary key references tide.consumer_group on delete cascade,
    outbox_id int not null references tide.outbox,
    armed     boolean not null default true
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
create index on tide.bell (outbox_id);

create table tide.consumer (
    group_id int not null references tide.consumer_group on delete cascade,
    name     text not null check (length(name) between 1 and 200),
    seen_at  timestamptz not null,
    primary key (group_id, name)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
create table tide.consumer_guard (
    guarded_since timestamptz not null default now()
);
create unique index consumer_guard_is_one_row on tide.consumer_guard ((true));
comment on table tide.consumer_guard is 'One row since a role has had the right to a single consumer group.';
comment on table tide.consumer is 'Who polls each polled group, and when it was last seen.';

create table tide.consumer_lease (
    group_id    int not null references tide.consumer_group on delete cascade,
    after_id    bigint not null,
    last_id     bigint not null,
    consumer    text,
    lease_until timestamptz,
    settled     boolean not null default false,
    primary key (group_id, after_id),
    check (after_id < last_id),
    check (settled or lease_until is not null)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table tide.consumer_lease is 'The ranges (after_id, last_id] that were handed out and lie above the offset of their group.';
comment on column tide.consumer_lease.consumer is
    'Null: no one; what is left of a range that ran out, after another consumer has polled a part of it.';
comment on column tide.consumer_lease.settled is 'Committed, while something below is not. Neighbours that are settled are one range.';

-- Inboxes -------------------------------------------------------------------------------------------------------------

create table tide.inbox (
    inbox_id                  int generated always as identity primary key,
    name                      text not null unique check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_-]{0,49}$'),
    table_schema              name not null,
    table_name                name not null,
    event_id_col              name not null default 'event_id',
    event_id_type             text not null default 'text',
    tracked                   boolean not null default false,
    max_retries               int not null default 3 check (max_retries between 0 and 1000000),
    with_dead_letter          boolean not null default true,
    with_stats                boolean not null default true,
    processed_retention_hours int check (processed_retention_hours >= 0),
    dead_retention_hours      int check (dead_retention_hours >= 0),
    aggregate_id_col          name,
    seq_col                   name,
    priority_col              name,
    priority_descending       boolean not null default true,
    created_at                timestamptz not null default now(),
    unique (table_schema, table_name),
    check ((aggregate_id_col is null) = (seq_col is null))
);
comment on table tide.inbox is 'The inboxes. Each is a table, of the same name unless it was there before (tracked).';
comment on column tide.inbox.max_retries is 'Part of the indexes and views of the inbox, so it is fixed when the inbox is made.';
comment on column tide.inbox.processed_retention_hours is 'Null: as the setting inbox_processed_retention_hours says. 0: indefinitely.';
comment on column tide.inbox.dead_retention_hours is 'Null: as the setting inbox_dlq_retention_hours says. 0: indefinitely.';

create type tide.inbox_listed as (
    event_id text, inbox_seq bigint, state text, event_type text, source text, aggregate_id text, event_sequence bigint,
    payload jsonb, headers jsonb, trace_id text, received_at timestamptz, processed_at timestamptz, error text, retry_count int,
    failed_at timestamptz, claimed_by text, available_at timestamptz);
comment on type tide.inbox_listed is 'A message of an inbox, under the names that its columns have in an inbox of ours.';

-- Messages that came again. Rows are only added, so that writers never wait for each other; tide.inbox_retain sums them up.
create table tide.inbox_duplicates (
    inbox_id   int not null references tide.inbox on delete cascade,
    counted_at timestamptz not null default now(),
    messages   bigint not null
);
create index on tide.inbox_duplicates (inbox_id);

-- Pipelines and their drains ------------------------------------------------------------------------------------------
--
-- Every write of a drain names its fence: epoch and number. The epoch grows whenever a pipeline gets a new owner or its
-- drain was abandoned; it grows only while no lease runs, so that two drains of a pipeline never publish at once.

-- Neither number ever comes back, also when a pipeline is deleted and made again under its name: a message of the old
-- one's drains stays stale, and no open sink of the old one is taken for the new one's.
create sequence tide.revisions;
create sequence tide.epochs;

create table tide.pipeline (
    name           text primary key check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$'),
    direction      text not null check (direction in ('forward', 'reverse', 'jobs', 'stream')),
    group_id       int unique references tide.consumer_group,
    enabled        boolean not null default true,
    config         jsonb not null check (jsonb_typeof(config) = 'object'),
    revision       bigint not null default nextval('tide.revisions'),
    invalid_reason text,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    inbox_id       int references tide.inbox,
    check ((direction in ('forward', 'jobs')) = (group_id is not null)),
    check ((direction = 'reverse') = (inbox_id is not null))
);
comment on column tide.pipeline.revision is 'Grows with every change; a running drain stops at the next batch when it sees one.';
comment on column tide.pipeline.invalid_reason is 'Why a scheduler cannot run this configuration; null if it can.';

create table tide.pipeline_history (
    history_id bigint generated always as identity primary key,
    pipeline   text not null,
    action     text not null check (action in ('create', 'change', 'enable', 'disable', 'delete')),
    changed_at timestamptz not null default clock_timestamp(),
    changed_by text not null,
    program    text not null,
    old        jsonb,
    new        jsonb
);
create index on tide.pipeline_history (pipeline, history_id);
create index on tide.pipeline_history (changed_at);
comment on column tide.pipeline_history.program is 'The application_name of the session.';

create table tide.drain (
    pipeline     text not null references tide.pipeline on delete cascade,
    lane         int not null default 0 check (lane >= 0),
    name         text not null unique generated always as (case lane when 0 then pipeline else pipeline || '/' || lane::text end) stored,
    owner        uuid,
    epoch        bigint not null default 0,
    number       bigint not null default 0,
    lease_until  timestamptz,
    lease_seconds float8 not null default 0,
    lease_assumed boolean not null default false,
    outcome      text,
    progressed   boolean not null default false,
    failures     int not null default 0,
    retry_at     timestamptz,
    error_code   text,
    error        text,
    error_at     timestamptz,
    needs_operator boolean not null default false,
    ended_at     timestamptz,
    delivered    bigint not null default 0,
    dead_letters bigint not null default 0,
    primary key (pipeline, lane)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on column tide.drain.progressed is 'Whether it settled any message.';
comment on column tide.drain.needs_operator is 'Whether what is wrong stays until someone changes something.';
comment on table tide.drain is 'The last drain of each lane of a pipeline: its fence (epoch, number), its lease, what became of it.';
comment on column tide.drain.name is 'By which schedulers own it: the pipeline, and /N for lane N of several.';
comment on column tide.drain.lease_seconds is 'How long the lease of the last drain was when it began; known after a crash too.';
comment on column tide.drain.lease_assumed is 'Whether the lease is of a drain that may have begun, after a crash: see tide.lease_memory.';

create unlogged table tide.lease_memory (
    is_whole boolean primary key default true check (is_whole)
);
insert into tide.lease_memory default values;
comment on table tide.lease_memory is
    'Has a row as long as no lease was forgotten. A crash of the server, and a failover, empty a table that is not logged; then a '
    'scheduler first gives a lease to each pipeline that may be in a drain.';

create table tide.position (
    pipeline  text not null references tide.pipeline on delete cascade,
    partition text not null,
    position  text not null,
    primary key (pipeline, partition)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table tide.position is
    'For each partition of a source, the position of the last message whose row is committed; for a sink that gathers, '
    'the end of the object in hand.';

-- The schedulers that run; each writes seen_at every second.
create table tide.scheduler (
    scheduler_id   uuid primary key,
    relay_group_id text not null,
    backend_pid    int not null,
    backend_start  timestamptz not null,
    host           text not null,
    pid            int not null,
    version        text not null,
    started_at     timestamptz not null default now(),
    seen_at        timestamptz not null default now(),
    waiting        jsonb not null default '{}',
    broker_trouble text
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on column tide.scheduler.waiting is
    'For each queue, how many of its drains no worker has taken, and for how long: {"tide.forward": {"drains": 3, "seconds": 82.1}}.';
comment on column tide.scheduler.broker_trouble is 'Why its broker takes no drains, without secrets; null if it does.';

-- The other processes that run, of workers and of relay api; each writes seen_at every ten seconds.
create table tide.process (
    process_id uuid primary key,
    kind       text not null check (kind in ('workers', 'api')),
    host       text not null,
    pid        int not null,
    version    text not null,
    queues     text[] not null default '{}',
    lacking    text[] not null default '{}',
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now()
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table tide.process is 'Signs of life of worker processes and of relay api: relay doctor and relay status read them.';
comment on column tide.process.queues is 'What a worker process is to serve.';
comment on column tide.process.lacking is 'Those of its queues that it is not connected to.';

-- Dead letters and replays --------------------------------------------------------------------------------------------

-- A message of a source has no row to be kept from, so its bytes are kept here.
create table tide.dead_letter (
    dead_letter_id     bigint generated always as identity primary key,
    pipeline           text not null,
    outbox             text,
    message_id         bigint,
    key                text,
    headers            jsonb,
    payload            jsonb,
    published_at       timestamptz,
    failed_at          timestamptz not null default now(),
    code               text not null,
    reason             text not null,
    inbox              text,
    event_id           text,
    subject            text,
    body               bytea,
    attempts           int not null default 1,
    first_failed_at    timestamptz not null default now(),
    retry_requested_at timestamptz,
    unique (pipeline, outbox, message_id),
    unique (pipeline, inbox, event_id),
    check ((outbox is null) <> (inbox is null)),
    check (outbox is null or (message_id is not null and payload is not null)),
    check (inbox is null or (event_id is not null and body is not null))
);
create index on tide.dead_letter (pipeline, dead_letter_id);
create index on tide.dead_letter (pipeline, dead_letter_id) where retry_requested_at is not null;
create index on tide.dead_letter (failed_at);
create index on tide.dead_letter (outbox, message_id);
comment on column tide.dead_letter.failed_at is 'When it was refused last.';
comment on column tide.dead_letter.attempts is 'How often the message was permanently refused.';
comment on column tide.dead_letter.retry_requested_at is 'Since when the next drain is to send it again; null if it is to stay.';

create table tide.replay (
    replay_id    bigint generated always as identity primary key,
    pipeline     text not null references tide.pipeline on delete cascade,
    outbox_id    int not null,
    from_id      bigint not null,
    to_id        bigint not null,
    next_id      bigint not null,
    requested_by text not null,
    requested_at timestamptz not null default now(),
    delivered    bigint not null default 0,
    dead_letters bigint not null default 0,
    ended_at     timestamptz,
    check (from_id <= to_id and next_id between from_id and to_id + 1)
) with (fillfactor = 50);
create index on tide.replay (pipeline, replay_id) where ended_at is null;
create index on tide.replay (ended_at);
create index on tide.replay (outbox_id, to_id);
comment on table tide.replay is 'Ranges of an outbox that a pipeline delivers once more; next_id is the first that is still to be sent.';
comment on column tide.replay.outbox_id is 'The outbox that the pipeline read when it was asked for: ids of another are other messages.';

create view tide.redelivery_waiting as
    select d.pipeline from tide.dead_letter d where d.retry_requested_at is not null
     union
    select r.pipeline from tide.replay r where r.ended_at is null;
comment on view tide.redelivery_waiting is 'The pipelines that have something to deliver once more.';

-- Jobs ----------------------------------------------------------------------------------------------------------------
--
-- A queue is an outbox of kind jobs: the same sequence, partitions, marks, horizon and bell. Jobs and attempts are written
-- once and removed by TRUNCATE; what changes is a cursor for each lane and a lease for each claim. The protocol: see
-- functions/job_claim.sql.

create table tide.job (
    outbox_id       int,
    id              bigint,
    created_at      timestamptz default clock_timestamp(),
    size            int,
    kind            "char" default 'p',
    priority        smallint default 0,
    max_attempts    smallint default 10,
    timeout_seconds int default 30,
    available_at    timestamptz,
    name            text,
    run_key         text,
    idempotency_key text,
    dedupe_key      text,
    trace_id        text,
    headers         jsonb,
    metadata        jsonb,
    options         jsonb,
    payload         jsonb
) partition by range (outbox_id);
create unique index job_id on tide.job (outbox_id, id);
create index job_priority on tide.job (outbox_id, priority desc, id)
    where priority <> 0 and available_at is null and run_key is null;
comment on column tide.job.kind is 'p: a Python handler, h: an HTTP request, d: a Dramatiq message, c: a Celery message.';
comment on column tide.job.available_at is 'Null: at once.';
comment on column tide.job.options is 'Backoff, what follows, what it waits for; null for most.';

-- Workers say what they write here, so it is checked; by one constraint instead of seven.
create table tide.job_attempt (
    outbox_id       int,
    id              bigint,
    attempt         smallint,
    worker_id       bigint,
    ended_at        timestamptz default clock_timestamp(),
    ms              int,
    outcome         "char",
    code            text,
    error           text,
    response_status smallint,
    preview         text,
    result          jsonb,
    constraint job_attempt_is_whole check (num_nulls(outbox_id, id, attempt, worker_id, ended_at, ms, outcome) = 0)
) partition by range (outbox_id);
create unique index job_attempt_id on tide.job_attempt (outbox_id, id, attempt);
create index job_attempt_cancelled on tide.job_attempt (outbox_id, id) where outcome = 'c';
comment on column tide.job_attempt.outcome is 's: succeeded, r: to be retried, d: dead, c: cancelled, l: the lease ran out.';

create table tide.job_queue (
    outbox_id            int primary key references tide.outbox on delete cascade,
    name                 text not null unique,
    group_id             int not null references tide.consumer_group,
    concurrency_limit    int check (concurrency_limit > 0),
    key_limit            int check (key_limit > 0),
    rate                 float8 check (rate > 0),
    burst                float8 check (burst >= 1),
    fair                 boolean not null default false,
    keep_succeeded       boolean not null default true,
    dead_retention_hours int not null default 720 check (dead_retention_hours >= 0)
);
comment on column tide.job_queue.key_limit is 'How many jobs of one run key run at a time; null: no limit.';
comment on column tide.job_queue.rate is 'Jobs a second over the whole fleet, with bursts of at most burst jobs; null: no limit.';

-- Who claims jobs of a queue locks the row of priority 0, the turn. `turn` grows with each update and ends the primary key, so
-- that the first index entry that a look meets is the living version, however many dead ones a held snapshot keeps.
create table tide.job_lane (
    outbox_id  int not null,
    priority   smallint not null,
    turn       bigint not null default 0,
    cursor_id  bigint not null default 0,
    horizon    bigint not null default 0,
    gaps       int8multirange not null default '{}',
    old_gaps   int8multirange not null default '{}',
    aged_at    timestamptz not null default now(),
    last_key   text not null default '',
    lanes_to   bigint not null default 0,
    tokens     float8 not null default 1e9,
    tokens_at  timestamptz not null default now(),
    primary key (outbox_id, priority, turn)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on column tide.job_lane.cursor_id is 'The id up to which the lane is claimed.';
comment on column tide.job_lane.lanes_to is 'The id up to which each priority that has jobs has a lane.';
comment on column tide.job_lane.gaps is 'Ids below a cursor that could not be seen when it passed them; those older than a second are in old_gaps.';

create table tide.job_worker (
    worker_id  bigint generated always as identity primary key,
    host       text not null,
    pid        int not null,
    queues     text[] not null,
    slots      int not null,
    version    text not null,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now(),
    stopping   boolean not null default false
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on table tide.job_worker is 'The processes that run jobs; a new row at each start.';

create table tide.job_lease (
    lease_id   bigint generated always as identity primary key,
    outbox_id  int not null,
    worker_id  bigint not null,
    ids        int8multirange not null,
    open       int not null,
    cancelled  int8multirange not null default '{}',
    claimed_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
create index on tide.job_lease (outbox_id, lease_id);
create index on tide.job_lease (worker_id);
comment on column tide.job_lease.ids is 'The jobs that the worker has claimed and not ended.';
comment on column tide.job_lease.cancelled is 'Those of them that an operator asked to cancel.';

create table tide.job_wait (
    outbox_id    int not null,
    id           bigint not null,
    attempt      smallint not null,
    priority     smallint not null,
    available_at timestamptz not null,
    needs        int not null default 0,
    run_key      text,
    code         text,
    primary key (outbox_id, id)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
create index on tide.job_wait (outbox_id, priority desc, available_at) where run_key is null;
create index on tide.job_wait (outbox_id, run_key, priority desc, id) where run_key is not null;
create index on tide.job_wait (outbox_id) where code = 'unknown_handler';
comment on column tide.job_wait.code is 'Why it waits again, if it was handed back or failed.';
create index on tide.job_wait (outbox_id, available_at);
comment on table tide.job_wait is 'Jobs that need a row before they may run: scheduled, to be retried, or with a run key.';
comment on column tide.job_wait.needs is 'How many jobs must succeed first.';

create table tide.job_running (
    outbox_id int not null,
    run_key   text not null,
    id        bigint not null,
    lease_id  bigint not null,
    primary key (outbox_id, run_key, id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
create index on tide.job_running (lease_id);
comment on table tide.job_running is 'Jobs with a run key that are leased.';

create table tide.job_dead (
    outbox_id   int not null,
    id          bigint not null,
    attempts    smallint not null,
    died_at     timestamptz not null default clock_timestamp(),
    code        text,
    error       text,
    job         jsonb not null,
    replayed_as bigint,
    primary key (outbox_id, id)
);
create index on tide.job_dead (died_at);
create index on tide.job_dead (outbox_id) where replayed_as is null;
comment on table tide.job_dead is 'Dead jobs, kept whole: they outlive their partition.';

create table tide.job_key (
    outbox_id int not null,
    kind      "char" not null,
    key       text not null,
    id        bigint not null,
    digest    bytea not null,
    free_on   "char",
    since     timestamptz not null default clock_timestamp(),
    primary key (outbox_id, kind, key)
);
create index on tide.job_key (outbox_id, id);
create index on tide.job_key (free_on, outbox_id) where free_on is not null;
comment on table tide.job_key is 'Keys in use. kind i: idempotency, as long as its job is kept; d: dedupe, until free_on (c: claimed, e: ended).';

create table tide.job_skip (
    outbox_id int not null,
    id        bigint not null,
    primary key (outbox_id, id)
);
comment on table tide.job_skip is 'Jobs that were cancelled before they were claimed.';

create table tide.job_kept (like tide.job including defaults including constraints, primary key (outbox_id, id));
comment on table tide.job_kept is 'Waiting jobs that were copied out of a partition that went.';

-- What follows jobs; see functions/job_follow.sql. Jobs that nothing follows have no row here.
create table tide.job_batch (
    batch_id    bigint generated always as identity primary key,
    closed      boolean not null default false,
    succeeded   bigint not null default 0,
    failed      bigint not null default 0,
    on_success  jsonb,
    on_complete jsonb,
    created_at  timestamptz not null default now(),
    ended_at    timestamptz
) with (fillfactor = 50);
create index on tide.job_batch (ended_at) where ended_at is not null;
comment on table tide.job_batch is 'Jobs whose end, all together, enqueues others.';

create table tide.job_follow (
    outbox_id int not null,
    id        bigint not null,
    has_then  boolean not null,
    batch_id  bigint references tide.job_batch,
    primary key (outbox_id, id)
);
create index on tide.job_follow (batch_id) where batch_id is not null;
comment on table tide.job_follow is 'Jobs that have not ended and are followed by another, or belong to a batch.';

create table tide.job_dependency (
    needs_outbox_id int not null,
    needs_id        bigint not null,
    outbox_id       int not null,
    id              bigint not null,
    any_end         boolean not null,
    may_be_late     boolean not null,
    primary key (needs_outbox_id, needs_id, outbox_id, id)
);
create index on tide.job_dependency (outbox_id, id);
create index on tide.job_dependency (needs_outbox_id, needs_id) where may_be_late;
comment on table tide.job_dependency is 'Jobs that others wait for. any_end: not only until it has succeeded.';

create table tide.job_schedule (
    schedule        text primary key check (length(schedule) between 1 and 200),
    outbox_id       int not null references tide.job_queue on delete cascade,
    cron            text not null check (length(cron) between 1 and 200),
    time_zone       text not null,
    missed          text not null check (missed in ('one', 'all', 'skip')),
    enabled         boolean not null default true,
    next_at         timestamptz,
    last_at         timestamptz,
    last_id         bigint,
    invalid_reason  text,
    name            text not null,
    payload         jsonb not null,
    kind            text not null,
    priority        int not null,
    max_attempts    int not null,
    timeout_seconds int not null,
    run_key         text,
    dedupe_key      text,
    dedupe          text,
    headers         jsonb,
    metadata        jsonb,
    options         jsonb,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now()
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
create index on tide.job_schedule (outbox_id);
comment on table tide.job_schedule is 'Jobs that are enqueued by the clock. The owner of the queue fires them: see tide.job_schedule_fire.';
comment on column tide.job_schedule.next_at is 'Null: the next scheduler that looks finds it out; or never, where invalid_reason says so.';
comment on column tide.job_schedule.missed is 'For ticks at which no scheduler ran: one job for the last, one for each, or none.';

create type tide.job_claimed as (
    lease_id bigint, id bigint, attempt smallint, kind "char", name text, priority smallint, timeout_seconds int,
    max_attempts smallint, created_at timestamptz, due_at timestamptz, payload text, headers text, metadata text, options text,
    idempotency_key text, run_key text, trace_id text
);
comment on type tide.job_claimed is 'A job as its worker gets it: JSON as text. due_at: since when it could run.';

create type tide.job_listed as (
    id bigint, job uuid, queue text, state text, name text, kind text, priority smallint, attempts smallint, max_attempts smallint,
    created_at timestamptz, available_at timestamptz, ended_at timestamptz, code text, run_key text, dedupe_key text,
    idempotency_key text, trace_id text, replayed_as uuid
);
comment on type tide.job_listed is 'A job without what can be large. available_at: of one that is pending; code: of its last attempt.';

create type tide.job_shown as (
    id bigint, job uuid, queue text, state text, name text, kind text, priority smallint, attempts smallint, max_attempts smallint,
    created_at timestamptz, available_at timestamptz, ended_at timestamptz, code text, run_key text, dedupe_key text,
    idempotency_key text, trace_id text, replayed_as uuid,
    timeout_seconds int, size int, payload text, headers text, metadata text, options text, error text, response_status smallint,
    preview text, result text, lease_id bigint, worker_id bigint, worker_host text, worker_pid int, claimed_at timestamptz,
    cancel_requested boolean
);
comment on type tide.job_shown is 'A job in full: JSON as text. error, response_status, preview and result are those of its last attempt.';

create type tide.job_attempted as (
    attempt smallint, status text, outcome "char", started_at timestamptz, ended_at timestamptz, ms int, code text, error text,
    response_status smallint, preview text, result text, worker_id bigint
);
comment on type tide.job_attempted is 'An attempt that has ended. status: succeeded, failed, timeout, lease_expired or cancelled.';

create type tide.job_numbers as (
    queue text, paused boolean, pending bigint, due bigint, scheduled bigint, leased bigint, dead bigint, oldest_due_seconds float8,
    workers int, concurrency_limit int
);
comment on type tide.job_numbers is 'Numbers of a queue; workers: those that serve it and gave a sign of life within a minute.';

-- Retention -----------------------------------------------------------------------------------------------------------

-- Every so often one scheduler of all takes the turn; see the statement `chore_take`.
create table tide.chore (
    name    text primary key,
    due_at  timestamptz not null default '-infinity',
    asked   boolean not null default false,
    done_at timestamptz
) with (fillfactor = 20);
insert into tide.chore (name) values ('maintenance');

-- The groups that are stopped because an operator decided so, or because they have no consumer. Their holds end some day; the clock starts
-- when retention sees them standing for the first time, so that nothing goes that was not warned of.
create table tide.hold (
    group_id int primary key references tide.consumer_group on delete cascade,
    since    timestamptz not null default clock_timestamp()
);

create table tide.retention_loss (
    loss_id        bigint generated always as identity primary key,
    outbox         text not null,
    consumer_group text not null,
    pipeline       text,
    reason         text not null check (reason in ('disabled', 'invalid', 'unpolled', 'not forced')),
    messages       bigint not null,
    first_id       bigint not null,
    last_id        bigint not null,
    first_at       timestamptz not null,
    last_at        timestamptz not null,
    lost_at        timestamptz not null default clock_timestamp()
);
create index on tide.retention_loss (outbox, last_id);
create index on tide.retention_loss (lost_at);
comment on table tide.retention_loss is 'Messages that went before a consumer group had settled them, and why.';

-- Tables as outboxes --------------------------------------------------------------------------------------------------

create table tide.table_outbox (
    source      regclass primary key,
    source_name text not null,
    outbox_id   int not null references tide.outbox,
    mode        text not null check (mode in ('statement', 'row')),
    enabled_at  timestamptz not null default now()
);
create index on tide.table_outbox (outbox_id);
comment on table tide.table_outbox is 'The tables that are outboxes. A name or a schema may change: the table stays known by its oid.';
comment on column tide.table_outbox.source_name is 'The name it was enabled by, for people: the table may have been dropped.';

-- The partitions that the running TRUNCATE of their parent empties too: that is published once, for the parent. No row
-- outlives its statement. A setting would do, but any role can change those.
create table tide.truncating (
    xid       xid8,
    partition oid,
    primary key (xid, partition)
);

create table tide.table_route (
    source           regclass primary key,
    source_name      text not null,
    outbox_id        int not null references tide.outbox,
    columns          text[] not null check (cardinality(columns) = 5),
    header_names     text[] not null,
    header_columns   text[] not null,
    existing_at      timestamptz,
    routed_at        timestamptz not null default now()
);
create index on tide.table_route (outbox_id);
comment on table tide.table_route is 'The tables whose new rows are messages. A name or a schema may change: the table stays known by its oid.';
comment on column tide.table_route.columns is 'The columns id, aggregate type, aggregate id, type and payload.';
comment on column tide.table_route.existing_at is 'When the rows that were in the table before were published; null if they were not.';

-- Identity ------------------------------------------------------------------------------------------------------------

-- One row, always there: see tide.database_identity.
create table tide.identity (
    one   boolean primary key default true check (one),
    id    uuid not null default gen_random_uuid(),
    since timestamptz not null default clock_timestamp()
);
insert into tide.identity default values;

-- Stream tables -------------------------------------------------------------------------------------------------------

-- The views of stream tables.
create schema tide_stream;
revoke all on schema tide_stream from public;

-- The functions by which statements of stream tables are run with the rights of their owners.
create schema tide_run;
revoke all on schema tide_run from public;

-- Ids leave room for those of 99 hidden nodes below each stream table: see tide.stream_plan.
create table tide.stream (
    stream_id     int generated always as identity (increment 100) primary key,
    name          text not null unique,
    relation      regclass not null unique,
    pipeline      text not null unique references tide.pipeline,
    query         text not null,
    schedule      text not null,
    refresh_mode  text not null check (refresh_mode in ('AUTO', 'DIFFERENTIAL', 'FULL', 'IMMEDIATE')),
    tier          text not null check (tier in ('hot', 'warm', 'cold', 'frozen')),
    suspended     boolean not null default false,
    daily         boolean not null,
    always_reason text,
    full_reason   text,
    settings      jsonb not null,
    outbox_id     int references tide.outbox,
    asked         xid8,
    append_only   boolean not null default false,
    append_broken text,
    diamond_consistency       text not null default 'atomic' check (diamond_consistency in ('atomic', 'none')),
    pooler_compatibility_mode boolean not null default false,
    refresh_group text,
    runner        name,
    group_id      int,
    created_at    timestamptz not null default now()
);
create index on tide.stream (group_id) where group_id is not null;
comment on column tide.stream.append_only is 'Rows of its sources are only ever added.';
comment on column tide.stream.append_broken is 'How it was seen that they are not, so that append_only was switched off.';
comment on column tide.stream.refresh_group is 'Those of the same name are refreshed as one.';
comment on column tide.stream.runner is 'The function of tide_run by which it is refreshed with the rights of its owner; null: that of the schema tide owns it.';
comment on column tide.stream.group_id is 'The lowest stream_id of those that are refreshed as one; null: it is alone. See tide.stream_regroup.';
comment on column tide.stream.asked is 'The last transaction that asked for a refresh: there was one when it is visible in the frontier.';
comment on column tide.stream.name is 'Schema and table, as PostgreSQL quotes them.';
comment on column tide.stream.daily is 'Whether the query reads current_date, so that each day has another result.';
comment on column tide.stream.always_reason is 'Why changes of its sources do not tell whether its result changed, so that it is computed each time.';
comment on column tide.stream.full_reason is 'Why changes of its sources are not captured row by row, so that a refresh computes it all.';
comment on column tide.stream.settings is 'The settings of the session that created it by which functions read and write values.';
comment on column tide.stream.outbox_id is 'Where each refresh publishes what it changed; null: nowhere.';

-- Where each stands: written by each refresh.
create table tide.stream_state (
    stream_id      int primary key references tide.stream on delete cascade,
    frontier       pg_snapshot,
    cluster        text,
    sources        text,
    data_timestamp timestamptz,
    errors         int not null default 0,
    last_error     text,
    refreshed_at   timestamptz,
    prepared       text,
    together       xid8
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on column tide.stream_state.frontier is 'The snapshot whose state the table shows; null: unknown, so the next refresh computes it all.';
comment on column tide.stream_state.cluster is 'Where the transaction ids of the frontier mean something.';
comment on column tide.stream_state.sources is 'What the capture of its sources was like: see tide.stream_captures.';
comment on column tide.stream_state.prepared is 'What tide.stream_prepare found in order: see tide.stream_basis.';
comment on column tide.stream_state.together is 'The last transaction in which it was refreshed with others of its group, by the fleet.';
comment on column tide.stream_state.errors is 'Refreshes that failed in a row.';

-- The tables that each reads, also through views.
create table tide.stream_source (
    stream_id int not null references tide.stream on delete cascade,
    source    oid not null,
    columns   smallint[] not null,
    primary key (stream_id, source)
);
comment on column tide.stream_source.columns is 'Numbers of the columns that it reads, and of the key.';
create index on tide.stream_source (source);

-- Sources whose rows are captured, in tide_stream.b_<source>: after __xid and __w, its columns are these of the source. See stream_buffers.sql.
create table tide.stream_buffer (
    source      oid primary key,
    columns     smallint[] not null,
    append_only boolean not null default false
);
comment on column tide.stream_buffer.append_only is 'Whether of a row that was added only the key is stored, and a row that was changed or removed is noted.';

-- How a stream table is refreshed incrementally, or why it cannot be. Made by a worker, judged by tide.stream_keep. Hidden nodes, each
-- with a table tide_stream.n_<id>, are refreshed before it: they have the ids that follow its own, in the order of their refreshes.
create table tide.stream_plan (
    stream_id int primary key,
    family    int not null generated always as (stream_id - (stream_id - 1) % 100) stored references tide.stream on delete cascade,
    version   int not null,
    facts     text not null,
    reason    text,
    kind      text check (kind in ('rows', 'state')),
    key       text[],
    groups    int,
    fields    jsonb,
    exact     jsonb,
    reads     oid[] not null default '{}',
    joins     jsonb,
    filled    boolean not null default false,
    made_at   timestamptz not null default clock_timestamp(),
    check ((reason is null) = (kind is not null))
);
comment on column tide.stream_plan.version is 'Of the analysis that made it: another one makes it again.';
comment on column tide.stream_plan.facts is 'What the analysis relied on: see tide.stream_facts.';
comment on column tide.stream_plan.key is 'Output columns by which rows are unique; null: none are, so equal rows are counted.';
comment on column tide.stream_plan.exact is 'By source, columns whose equal values may show differently (1.5, 1.50).';
comment on column tide.stream_plan.family is 'The stream table that it is refreshed with.';
comment on column tide.stream_plan.joins is 'By source, the numbers of the columns by which the query joins it.';
comment on column tide.stream_plan.reads is 'The tables and nodes that it reads itself.';
comment on column tide.stream_plan.filled is 'Whether its state in tide_stream.s_<stream_id>, and its nodes, are those of the frontier.';
create index on tide.stream_plan (family);

-- The view tide_stream.w_<stream_id>_<number> says what a change of exactly these sources changes.
create table tide.stream_statement (
    stream_id int not null references tide.stream_plan on delete cascade,
    number    int not null,
    sources   oid[] not null,
    strategy  text not null check (strategy in ('linear', 'keyed', 'two states', 'groups', 'full')),
    form      text not null check (form in ('rows', 'state')),
    reason    text,
    primary key (stream_id, number),
    unique (stream_id, sources)
);
comment on column tide.stream_statement.sources is 'In ascending order.';
comment on column tide.stream_statement.reason is 'Why such a change is refreshed by no better strategy.';

-- The stream tables that their writers maintain: the triggers are in place.
create table tide.stream_immediate (
    stream_id int primary key references tide.stream on delete cascade,
    touched   xid8 not null,
    triggers  text
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on column tide.stream_immediate.touched is
    'The last transaction that had the stream table to itself. Who does not see it cannot update this row, and does not know what the table holds.';
comment on column tide.stream_immediate.triggers is 'What the triggers and the sources were like: see tide.stream_immediate_triggers.';

-- The parts of the statements of incremental refreshes, as they are run: see tide.stream_part.
create table tide.stream_text (
    stream_id int not null references tide.stream_plan on delete cascade,
    name      text not null,
    rests_on  text not null,
    text      text not null,
    primary key (stream_id, name)
);
comment on column tide.stream_text.rests_on is 'What the sources, the table and its outbox were like: the text is made again when that differs.';

-- What a refresh does and why: see tide.stream_choose. Capture: see tide.stream_captures. Sources: those with captured rows that it has
-- not seen; waiting, both_signs, arrays: how many, whether of both signs, and whether in arrays too. Own: its transaction changed its sources itself.
create type tide.stream_choice as (
    action text, strategy text, reason text, number int, frontier pg_snapshot, capture text, sources oid[], waiting bigint[], both_signs boolean[],
    arrays boolean[], large boolean, deltas text[], source_rows bigint, missing oid[], planned boolean, own boolean, changed oid[]
);

-- What a refresh did: rows that went and came, net, and how they were written.
create type tide.stream_done as (
    gone bigint, came bigint, inserted bigint, updated bigint, deleted bigint, unsound boolean
);

-- That a transaction changed a source, in a way that no row tells: one row for each of the two, written by the transaction itself.
-- Where rows are captured, it means: look at everything.
create table tide.stream_change (
    source oid not null,
    xid    xid8 not null,
    primary key (source, xid)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);

-- What was removed of the changes of a source: all of it was visible in this snapshot. See tide.stream_note_cleaned.
create table tide.stream_cleaned (
    source  oid primary key,
    cleaned pg_snapshot not null
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- Snapshots of stream tables from whose frontier they can go on. The table with the rows names this row in its comment.
create table tide.stream_snapshot (
    snapshot_id uuid primary key,
    stream_id   int not null references tide.stream on delete cascade,
    frontier    pg_snapshot not null,
    cluster     text not null,
    sources     text not null,
    query_hash  text not null
);

create table tide.stream_history (
    refresh_id    bigint generated always as identity primary key,
    stream_id     int not null references tide.stream on delete cascade,
    started_at    timestamptz not null,
    action        text not null check (action in ('NO_DATA', 'DIFFERENTIAL', 'FULL', 'FAILED')),
    strategy      text,
    reason        text,
    source_rows   bigint,
    rows_inserted bigint not null default 0,
    rows_updated  bigint not null default 0,
    rows_deleted  bigint not null default 0,
    milliseconds  float8 not null,
    error         text
);
comment on column tide.stream_history.strategy is 'How the refresh found what differs: linear, keyed, two states, groups, full; with nodes, those of its steps, joined by " + ".';
comment on column tide.stream_history.reason is 'Why it was refreshed; for FULL, why it was not DIFFERENTIAL.';
comment on column tide.stream_history.source_rows is 'Rows of its sources that changed since the last refresh, net; null: not counted.';
comment on column tide.stream_history.rows_updated is 'Rows of which only columns outside the key changed. They are in neither of the other numbers.';
create index on tide.stream_history (stream_id, refresh_id);
create index on tide.stream_history (stream_id, refresh_id) where action = 'FULL';

-- Settings ------------------------------------------------------------------------------------------------------------

-- One row each, read whenever it is needed, so that a change counts at once.
create table tide.setting (
    name          text primary key,
    kind          text not null check (kind in ('boolean', 'hours', 'count', 'duration')),
    value         text not null,
    default_value text not null,
    description   text not null,
    check (case kind when 'boolean' then value in ('true', 'false') when 'duration' then value ~ '^(\d{1,9}(ms|s|m|h|d) *)+$' else value ~ '^\d{1,9}$' end)
);
comment on table tide.setting is 'Change a value with tide.setting_set; the names are fixed.';

insert into tide.setting (name, kind, value, default_value, description)
select s.name, s.kind, s.value, s.value, s.description
  from (values
    ('outbox_enabled', 'boolean', 'true', 'Whether outboxes may be created. Existing ones keep working.'),
    ('outbox_retention_hours', 'hours', '24', 'Retention of an outbox that is created without one.'),
    ('outbox_force_retention', 'boolean', 'true',
     'Whether messages are kept beyond the retention until every consumer group has settled them.'),
    ('max_retention_hours', 'hours', '168',
     'How long a disabled pipeline, or a consumer group that no one polls, may hold messages that the others have settled. 0: indefinitely.'),
    ('outbox_skip_empty_delta', 'boolean', 'true', 'Whether a table outbox leaves out statements that changed nothing.'),
    ('consumer_dead_threshold_hours', 'hours', '24', 'How long a consumer may be silent until it counts as dead.'),
    ('consumers_per_group', 'count', '1000', 'How many consumers a group can have. 0: no limit.'),
    ('consumer_cleanup_enabled', 'boolean', 'true', 'Whether dead consumers are removed, and what they hold is given to others.'),
    ('inbox_enabled', 'boolean', 'true', 'Whether inboxes may be created. Existing ones keep working.'),
    ('inbox_processed_retention_hours', 'hours', '72', 'How long processed messages stay in an inbox that has no retention of its own. 0: indefinitely.'),
    ('inbox_dlq_retention_hours', 'hours', '0', 'How long dead messages stay in an inbox that has no retention of its own. 0: indefinitely.'),
    ('inbox_dlq_alert_max_per_refresh', 'count', '10', 'How many newly dead messages within five minutes make the health of an inbox critical.'),
    ('dead_letter_retention_hours', 'hours', '0', 'How long dead letters of pipelines are kept. 0: indefinitely.'),
    ('config_history_retention_hours', 'hours', '0', 'How long the history of configurations is kept. 0: indefinitely.'),
    ('stream_history_retention_hours', 'hours', '168', 'How long the history of refreshes is kept. 0: indefinitely.'),
    ('stream_default_schedule', 'duration', '1s', 'The schedule of a stream table that is created without one and reads no other.'),
    ('stream_max_concurrent_refreshes', 'count', '4', 'How many stream tables the schedulers of one group have refreshed at once. 0: no limit.'),
    ('stream_calculated_min_interval_ms', 'count', '1000',
     'How many milliseconds at least from one refresh to the next of a stream table that follows others. Its tier multiplies it.'),
    ('stream_max_buffer_rows', 'count', '10000000',
     'How many changed rows may wait for a stream table; with more it is computed as a whole. 0: no limit.'),
    ('stream_max_consecutive_errors', 'count', '3', 'After how many refreshes in a row that failed a stream table is suspended. 0: never.'),
    ('stream_differential_max_change_percent', 'count', '30',
     'From what part of the rows of its sources on AUTO computes the whole, as long as no refreshes say what is cheaper.')
  ) as s (name, kind, value, description);

-- Permissions ---------------------------------------------------------------------------------------------------------
--
-- The kinds of roles, each with the least that it needs. A right is a row of this table, and nowhere else;
-- tide.grant_admin, tide.grant_publisher and the others give a role all rows of its kind. A new function comes with a
-- migration that says here who may call it, or that no one but the owner may.
create table tide.permission (
    kind        text not null check (kind in ('admin', 'operator', 'reader', 'publisher', 'consumer', 'group_consumer', 'inbox_worker',
                                              'relay', 'api', 'inbox_writer', 'job_publisher', 'job_worker', 'job_operator', 'streams', 'owner')),
    object_type text not null check (object_type in ('function', 'table', 'sequence')),
    schema      name not null default 'tide',
    object      name not null,
    privileges  text not null default 'execute',
    primary key (kind, object_type, schema, object)
);
comment on table tide.permission is
    'The rights of each kind of role; kind owner: no one else has any. A function stands for all of its name.';

insert into tide.permission (kind, object_type, object)
select p.kind, 'function', unnest(p.names)
  from (values
    -- What configures.
    ('admin', array[
        'outbox_create', 'outbox_create_if_not_exists', 'outbox_drop', 'outbox_grant_publish', 'outbox_revoke_publish',
        'relay_set_outbox', 'relay_set_inbox', 'relay_delete', 'create_consumer_group', 'drop_consumer_group',
        'consumer_group_grant', 'consumer_group_revoke', 'inbox_create', 'inbox_drop', 'inbox_grant', 'inbox_revoke', 'enable_inbox_ordering', 'disable_inbox_ordering',
        'enable_inbox_priority', 'disable_inbox_priority', 'enable_inbox_tracking', 'disable_inbox_tracking',
        'job_queue_create', 'job_queue_drop', 'setting_set', 'setting_reset', 'outbox_skip_ids', 'relay_skip_epochs', 'relay_raise_sequences',
        'database_identity_renew',
        -- A table is made an outbox with the rights of its owner: so these need their parts, too.
        'table_outbox_enable', 'table_outbox_disable', 'table_outbox_changed', 'table_outbox_tables',
        'table_outbox_triggers', 'table_outbox_register', 'table_outbox_forget', 'table_name',
        'table_outbox_route', 'table_outbox_unroute', 'table_routed', 'table_route_triggers', 'table_route_register',
        'table_route_existing', 'table_route_append', 'table_route_payload', 'table_route_forget']),
    -- What keeps going what is configured.
    ('operator', array[
        'outbox_enable', 'outbox_disable', 'outbox_extend', 'outbox_needs_partition', 'relay_enable', 'relay_disable',
        'relay_list_configs', 'relay_get_config', 'relay_config_history', 'relay_dlq_list', 'relay_dlq_retry', 'relay_dlq_discard',
        'relay_dlq_purge', 'relay_replay', 'relay_replay_preview', 'relay_replay_cancel', 'seek_offset', 'consumers_reap',
        'outbox_set_retention', 'outbox_retain', 'inbox_retain', 'dead_letter_retain', 'config_history_retain']),
    -- What tells how things are, and shows neither messages nor configurations.
    ('reader', array[
        'outbox_status', 'outbox_last_id', 'outbox_last_ids', 'outbox_horizon', 'outbox_oldest_publisher_seconds', 'outbox_holds',
        'consumer_lag', 'consumer_status', 'inbox_status', 'inbox_health', 'inbox_ordering_gaps',
        'relay_dlq_stats', 'relay_replays', 'table_outbox_status', 'setting_number', 'setting_is_on', 'outbox_of',
        'see_anything', 'database_identity', 'job_state', 'job_list', 'job_stats', 'job_unknown_handlers', 'job_queue_list', 'job_uuid', 'job_of_uuid']),
    ('reader', array['job_schedule_list', 'outbox_highest_id', 'outbox_highest_ids', 'inbox_dead_numbers', 'dead_letters_now']),
    ('relay', array['job_schedule_list', 'job_schedule_fire', 'outbox_highest_id', 'outbox_highest_ids', 'inbox_dead_numbers', 'dead_letters_now', 'see_anything', 'inbox_status',
        'inbox_health', 'outbox_status']),
    ('operator', array['dead_letters_now', 'relay_replay_span', 'operate_inboxes', 'inbox_messages', 'inbox_replay', 'inbox_replay_dead']),
    ('inbox_worker', array['inbox_dead_numbers', 'inbox_messages', 'inbox_replay', 'inbox_replay_dead']),
    ('owner', array['inbox_require_operator', 'inbox_in_state', 'inbox_state_time']),
    ('relay', array['lanes_change', 'lane_of']),
    ('reader', array['lane_of']),
    ('owner', array['settled_id']),
    ('api', array['process_beat', 'process_stop']),
    ('job_worker', array['job_schedule_set']),
    ('job_operator', array[
        'job_schedule_set', 'job_schedule_delete', 'job_schedule_enable', 'job_schedule_disable', 'job_schedule_list']),
    ('owner', array['find_job_schedule', 'job_schedule_switch']),
    -- A query runs with the rights of who owns the schema: tide.stream_create refuses everybody else.
    ('owner', array[
        'stream_interval_ms', 'stream_tables_read', 'stream_unseen', 'stream_read_again',
        'stream_trees', 'stream_always_reason', 'stream_capture', 'stream_capture_source', 'stream_capture_sources', 'stream_buffer_serves', 'stream_capture_end', 'stream_captured',
        'stream_sources_now', 'stream_cluster', 'stream_captures', 'stream_full', 'find_stream',
        'stream_configure', 'stream_day', 'stream_refreshed', 'stream_reason',
        'stream_buffer_clean', 'stream_buffer_columns', 'stream_buffer_drop', 'stream_buffer_function', 'stream_buffer_make',
        'stream_buffer_names', 'stream_capture_differs', 'stream_choose', 'stream_columns', 'stream_columns_of', 'stream_columns_read',
        'stream_counted', 'stream_dearer', 'stream_deltas_drop', 'stream_differential', 'stream_facts', 'stream_forget_plan',
        'stream_full_checked', 'stream_full_reason', 'stream_harmless', 'stream_hash_text', 'stream_hashable', 'stream_hashed', 'stream_judge',
        'stream_judge_columns', 'stream_keep_indexes', 'stream_keep_state', 'stream_keep_statement', 'stream_kept_text', 'stream_key',
        'stream_key_names', 'stream_key_numbers', 'stream_limit_waiting', 'stream_measure', 'stream_net_text', 'stream_note',
        'stream_noted', 'stream_own', 'stream_path_reason', 'stream_reads', 'stream_require_select', 'stream_rows_of',
        'stream_changed', 'stream_why', 'stream_reasons', 'stream_basis', 'stream_check_files', 'stream_part', 'stream_change_text', 'stream_run', 'stream_same_text', 'stream_source_reason', 'stream_sources_read', 'stream_state_text', 'stream_to_plan',
        'stream_tree_ids', 'stream_trigger_text', 'stream_triggers', 'stream_unplanned', 'stream_unsound_text', 'stream_view',
        'stream_views', 'stream_waiting', 'stream_waits_for_more', 'stream_wanted', 'stream_wants_rows', 'stream_why_full',
        'stream_write_text', 'stream_told_make', 'stream_told_text', 'stream_publish', 'stream_publish_chunk',
        'stream_family', 'stream_follow', 'stream_keep_node', 'stream_keep_plan', 'stream_kept', 'stream_node_changed', 'stream_node_follow', 'stream_node_line',
        'stream_node_plans', 'stream_nodes_fill', 'stream_require_sound', 'stream_step', 'stream_table_oids']),
    ('owner', array['stream_delta_text', 'stream_told', 'stream_immediate_reason', 'stream_immediate_check', 'stream_immediate_locks',
        'stream_immediate_text', 'stream_immediate_statement', 'stream_immediate_delta', 'stream_immediate_counts', 'stream_immediate_groups', 'stream_immediate_known', 'stream_immediate_settings',
        'stream_immediate_function', 'stream_immediate_make', 'stream_immediate_lock', 'stream_immediate_whole', 'stream_immediate_failed',
        'stream_immediate_truncated', 'stream_immediate_triggers', 'stream_is_immediate', 'stream_immediate_behind', 'stream_immediate_end', 'stream_immediate_drop', 'stream_immediate_index', 'stream_immediate_stays',
        'stream_sources_locked', 'stream_is_followed']),
    ('admin', array['create_stream_table', 'stream_create', 'drop_stream_table', 'alter_stream_table', 'stream_forget', 'is_stream_table',
        'stream_outbox_enable', 'stream_outbox_disable']),
    ('operator', array['refresh_stream_table', 'resume_stream_table', 'pause_stream_table']),
    ('relay', array['stream_immediate_begin', 'stream_refresh', 'stream_prepare', 'stream_describe', 'stream_read', 'stream_keep', 'stream_keep_change',
        'stream_failed', 'stream_behind', 'stream_clean', 'stream_tables']),
    ('reader', array['stream_tables', 'stream_behind']),
    ('owner', array['stream_schedule', 'stream_above', 'stream_waits', 'stream_is_due', 'stream_is_cron', 'stream_check_cron',
        'stream_check_options', 'stream_covers', 'stream_shows']),
    ('admin', array['create_stream_table_if_not_exists', 'create_or_replace_stream_table', 'stream_create_if', 'stream_requery', 'stream_set',
        'stream_require_owner']),
    ('operator', array['wait_for_stream_table']),
    ('reader', array['wait_for_stream_table']),
    ('streams', array['create_stream_table', 'create_stream_table_if_not_exists', 'create_or_replace_stream_table', 'alter_stream_table',
        'drop_stream_table', 'resume_stream_table', 'refresh_stream_table', 'wait_for_stream_table', 'stream_create', 'stream_create_if',
        'stream_create_foreign', 'stream_given', 'stream_define', 'stream_target', 'stream_check_columns', 'stream_make_runner', 'stream_runner_text',
        'stream_enter', 'stream_requery', 'stream_requery_foreign', 'stream_reenter', 'stream_add_columns', 'stream_set', 'stream_guard',
        'stream_relation', 'stream_runner', 'stream_require_owner', 'stream_is_foreign', 'stream_owner', 'is_stream_table', 'stream_usual_schedule']),
    ('owner', array['stream_check_runner', 'stream_run_as_owner', 'stream_execute', 'stream_unreadable', 'stream_lend', 'stream_computed',
        'stream_make_trigger', 'stream_drop_trigger', 'stream_require_mine', 'stream_drop_table', 'stream_check_foreign', 'stream_refuse_columns',
        'stream_take_query', 'stream_insert', 'stream_check_usage', 'grant_streams']),
    ('relay', array['stream_begun', 'stream_ready', 'stream_numbers', 'health_check', 'stream_together', 'stream_together_end']),
    ('owner', array['stream_ties', 'stream_regroup', 'stream_members', 'stream_led_by', 'stream_led', 'stream_follows', 'stream_group_config',
        'stream_lock', 'stream_in_turn', 'stream_frontier', 'stream_frontier_of', 'stream_timing', 'stream_configure_one', 'stream_configure_all',
        'snapshot_union', 'stream_appends', 'stream_delta_kind', 'stream_appended_text', 'stream_append_broken', 'stream_recover']),
    ('reader', array['diamond_groups']),
    ('reader', array['stream_ready']),
    ('reader', array['pgt_status', 'refresh_history', 'latency_percentiles', 'change_buffer_sizes', 'health_check', 'refresh_efficiency',
        'recommend_refresh_mode', 'explain_refresh_mode', 'refresh_strategies', 'stream_nodes', 'dependency_tree', 'export_definition']),
    ('owner', array['streams_named', 'stream_measured', 'stream_verdict', 'stream_unindexed', 'stream_join_columns', 'stream_pending']),
    ('admin', array['snapshot_stream_table', 'restore_from_snapshot', 'drop_snapshot']),
    ('reader', array['list_snapshots']),
    ('owner', array['snapshot_within', 'stream_note_cleaned', 'stream_query_hash', 'snapshot_facts', 'find_snapshot', 'stream_column_list',
        'snapshot_check', 'snapshot_state', 'snapshot_forget', 'snapshot_restore_state', 'snapshot_unusable', 'snapshot_write']),
    ('publisher', array['outbox_publish', 'outbox_publish_many', 'outbox_limit', 'publish_anywhere', 'outbox_more', 'outbox_ask', 'outbox_fits']),
    ('consumer', array['consume_anywhere']),
    ('group_consumer', array[
        'poll_outbox', 'commit_offset', 'extend_lease', 'consumer_heartbeat', 'consumer_lag', 'consumer_status']),
    -- What works inboxes off, with the caller's rights: so it needs its parts, too.
    ('inbox_worker', array[
        'inbox_claim', 'inbox_mark_processed', 'inbox_mark_failed', 'inbox_release', 'replay_inbox_messages', 'inbox_status',
        'inbox_health', 'inbox_ordering_gaps', 'inbox_is_my_partition', 'find_inbox', 'inbox_pending', 'inbox_dead',
        'inbox_relation', 'inbox_claimable', 'inbox_waiting', 'inbox_is_next', 'inbox_heads', 'inbox_lock', 'inbox_lock_next',
        'inbox_lock_aggregates']),
    ('relay', array[
        'outbox_horizon', 'outbox_last_id', 'outbox_last_ids', 'bell_rings', 'message_size', 'outbox_needs_partition', 'outbox_extend', 'outbox_oldest_publisher_seconds',
        'outbox_retain', 'outbox_holds', 'inbox_retain', 'dead_letter_retain', 'config_history_retain', 'consumers_reap',
        'database_identity', 'job_state', 'job_list', 'job_stats', 'job_unknown_handlers', 'job_queue_list']),
    ('api', array['inbox_look']),
    ('inbox_writer', array['inbox_write']),
    ('relay', array['inbox_receive', 'inbox_move']),
    ('job_publisher', array['job_enqueue', 'job_enqueue_plain', 'job_enqueue_many', 'job_enqueued', 'job_batch_create', 'job_batch_close', 'job_batch_get', 'job_uuid', 'job_of_uuid']),
    ('job_worker', array[
        'job_claim', 'job_finish', 'job_complete', 'job_release', 'job_rescue', 'job_worker_start', 'job_worker_beat', 'job_worker_stop',
        'job_look', 'job_queue_behind', 'job_results',
        'job_queue_create_if_not_exists', 'job_uuid', 'job_of_uuid']),
    ('job_operator', array['job_queue_pause', 'job_queue_resume', 'job_uuid', 'job_of_uuid', 'job_state', 'job_list', 'job_get', 'job_attempts',
        'job_stats', 'job_unknown_handlers', 'job_batch_get', 'job_queue_list', 'job_queue_set', 'job_cancel', 'job_cancel_many', 'job_replay', 'job_replay_many', 'job_purge']),
    ('owner', array[
        'outbox_logs', 'outbox_twins', 'log_root', 'log_parent', 'outbox_make', 'outbox_make_parents', 'job_settle', 'job_lowest', 'job_forget', 'job_queue_check', 'find_message_outbox', 'find_job_queue', 'job_queue_is_idle', 'job_check', 'job_size',
        'job_key_take', 'job_waits', 'job_keys_take', 'job_debounce', 'job_check_lanes', 'job_fits', 'job_has_all', 'job_take_id', 'job_ask', 'job_ring', 'job_claim_in', 'job_claim_late_in', 'id_ranges', 'job_claim_keyed', 'job_claim_due',
        'job_claim_lane_in', 'job_priorities', 'job_priorities_in', 'job_stored', 'job_stored_in', 'job_stored_of', 'job_attempts_in', 'job_attempts_of', 'job_finish_in', 'job_lease_end_in', 'job_copy', 'job_copied', 'job_copies_drop', 'job_find', 'job_find_of', 'job_kind', 'job_cursor', 'job_gaps', 'job_state_of', 'job_ids',
        'job_listed', 'job_check_state', 'job_lane_numbers', 'job_named', 'job_cancel_one', 'job_take_turn', 'job_again', 'job_template_problem', 'job_templates_check',
        'job_enqueue_next', 'job_not_enqueued', 'job_follow_enqueue', 'job_cancel_dependent', 'job_followed', 'job_follows', 'job_followed_lease', 'job_follow_late',
        'job_follow_drop', 'job_follow_lock', 'job_batch_end', 'job_lease_end', 'job_end_skipped',
        'grant_admin', 'grant_operator', 'grant_reader', 'grant_publisher', 'grant_consumer', 'grant_relay', 'grant_api',
        'grant_inbox_writer', 'grant_job_publisher', 'grant_job_worker', 'grant_rights', 'apply_permissions', 'kinds_of', 'may_publish', 'guard_publishing', 'new_outbox_guarded',
        'require_role', 'inbox_rights', 'find_outbox', 'find_pipeline', 'find_setting', 'lock_class', 'attach_partition', 'outbox_keep_partitions', 'see_partitions',
        'outbox_upper', 'job_highest_id', 'outbox_set_enabled', 'outbox_mark', 'outbox_mark_again', 'outbox_measure', 'far_too_large', 'outbox_asleep', 'outbox_ring', 'outbox_refuse', 'refuse_pipeline',
        'relay_set_enabled', 'inbox_notify', 'keep_direction', 'redelivery_floor', 'redelivery_wake', 'forget_requests',
        'end_replays', 'caller', 'refuse_dead_letter', 'direction_of', 'replay_range', 'pipeline_described', 'keep_history',
        'check_consumer_name', 'check_isolation', 'check_seconds', 'consumer_alive_since', 'consumer_group_lock',
        'consumer_lease_again', 'consumer_lease_new', 'consumer_seen', 'consumer_settle', 'consumer_unsettled',
        'find_consumer_groups', 'message_batch', 'message_count', 'refuse_commit', 'refuse_consumer_group',
        'refuse_polled_group', 'inbox_add_columns', 'inbox_build', 'inbox_check_column', 'inbox_check_table',
        'header_texts', 'inbox_insert', 'inbox_write_copy', 'inbox_move_copy', 'inbox_move_drop', 'inbox_code_of_others', 'inbox_failed', 'inbox_forget', 'inbox_guard', 'inbox_refuse_name', 'inbox_remove',
        'held_for_long', 'lock_holders', 'changing', 'longest_hold', 'newest_message', 'outbox_cut', 'outbox_drop_partitions',
        'outbox_drop_tables', 'outbox_groups', 'outbox_may_go', 'outbox_retained', 'outbox_partitions', 'outbox_truncate', 'record_losses',
        'outbox_append', 'outbox_marked', 'outbox_publish_checked', 'outbox_publish_many_checked', 'outbox_make_view', 'outbox_make_views', 'outbox_grant_views',
        'outbox_revoke_view', 'outbox_changed', 'keep_bell', 'bell_changed', 'outbox_skip_plan', 'outbox_skip_check', 'is_array', 'keep_table_outbox', 'table_key', 'table_outbox_append_chunk',
        'table_outbox_append_rows', 'table_outbox_columns', 'table_outbox_problem', 'table_outbox_refuse_size',
        'table_outbox_refuse_table', 'table_route_has', 'table_route_query', 'table_route_of', 'table_route_column',
        'table_route_problem', 'keep_table_route', 'is_trusted', 'expression_uses', 'type_uses', 'function_is_harmless',
        'inbox_look_at', 'inbox_looks_plain', 'inbox_is_plain', 'is_own_trigger', 'require_own_trigger', 'may_consume', 'may_see_anything',
        'require_consumer', 'consumer_room', 'may_see_inbox', 'inbox_require_sight'])
  ) as p (kind, names);

-- The names of pg_trickle: a kind that may call what they wrap may call them.
insert into tide.permission (kind, object_type, schema, object)
select p.kind, 'function', 'pgtrickle', unnest(p.names)
  from (values
    ('admin', array[
        'enable_outbox', 'disable_outbox', 'create_consumer_group', 'drop_consumer_group', 'create_inbox', 'drop_inbox',
        'enable_inbox_ordering', 'disable_inbox_ordering', 'enable_inbox_priority', 'disable_inbox_priority',
        'enable_inbox_tracking', 'set_relay_outbox', 'set_relay_inbox', 'delete_relay', 'relay_box', 'relay_outbox']),
    ('operator', array[
        'enable_relay', 'disable_relay', 'list_relay_configs', 'get_relay_config', 'seek_offset', 'relay_changed']),
    ('reader', array['consumer_lag', 'inbox_status', 'outbox_status', 'outbox_of']),
    ('reader', array['pgt_status', 'refresh_history', 'get_refresh_history', 'latency_percentiles', 'change_buffer_sizes', 'health_check',
        'refresh_efficiency', 'recommend_refresh_mode', 'explain_refresh_mode', 'dependency_tree', 'export_definition', 'diamond_groups']),
    ('admin', array['create_stream_table', 'create_stream_table_if_not_exists', 'create_or_replace_stream_table', 'alter_stream_table',
        'drop_stream_table', 'stream_options', 'snapshot_stream_table',
        'restore_from_snapshot', 'drop_snapshot']),
    ('reader', array['list_snapshots']),
    ('operator', array['refresh_stream_table', 'resume_stream_table', 'wait_for_stream_table']),
    ('streams', array['create_stream_table', 'create_stream_table_if_not_exists', 'create_or_replace_stream_table', 'alter_stream_table',
        'drop_stream_table', 'stream_options', 'refresh_stream_table', 'resume_stream_table', 'wait_for_stream_table']),
    ('reader', array['wait_for_stream_table']),
    ('group_consumer', array['poll_outbox', 'commit_offset', 'extend_lease', 'consumer_heartbeat', 'consumer_lag']),
    ('inbox_worker', array[
        'inbox_health', 'inbox_status', 'replay_inbox_messages', 'inbox_ordering_gaps', 'inbox_is_my_partition'])
  ) as p (kind, names);

insert into tide.permission (kind, object_type, object, privileges)
select p.kind, p.object_type, unnest(p.names), p.privileges
  from (values
    ('relay', 'table', 'select', array[
        'migration', 'function_file', 'outbox', 'message', 'inbox', 'setting', 'redelivery_waiting', 'retention_loss',
        'hold', 'mark', 'process']),
    ('relay', 'table', 'select, update (invalid_reason)', array['pipeline']),
    ('relay', 'table', 'select, insert', array['lease_memory']),
    ('relay', 'table', 'select, update', array['consumer_group', 'bell', 'drain', 'replay', 'chore']),
    ('relay', 'table', 'select, insert, update, delete', array['dead_letter', 'position', 'scheduler']),
    ('relay', 'sequence', 'usage', array['epochs']),
    ('api', 'table', 'select', array['migration', 'function_file', 'pipeline', 'outbox', 'consumer_group']),
    ('inbox_writer', 'table', 'select', array['inbox']),
    ('inbox_worker', 'table', 'select', array['inbox']),
    ('operator', 'table', 'select', array['pipeline', 'position', 'replay', 'redelivery_waiting']),
    ('reader', 'table', 'select', array[
        'migration', 'function_file', 'outbox', 'consumer_group', 'bell', 'scheduler', 'process', 'drain', 'inbox', 'setting',
        'retention_loss', 'permission', 'mark']),
    ('reader', 'table', 'select (name, direction, group_id, inbox_id, enabled, revision, invalid_reason, created_at, updated_at)',
        array['pipeline']),
    ('reader', 'table', 'select (outbox_id, id, created_at, size)', array['message']),
    ('owner', 'table', 'all', array['consumer', 'consumer_lease', 'identity', 'inbox_duplicates', 'pipeline_history', 'publish_guard',
        'table_outbox', 'table_route', 'truncating',
        'consumer_guard']),
    ('owner', 'table', 'all', array['job_batch', 'job_follow', 'job_dependency', 'job_key', 'job_lane', 'job_running', 'job_skip', 'job_kept', 'job_wait']),
    ('relay', 'table', 'select', array['job_queue', 'job_lease', 'job_worker', 'job', 'job_attempt', 'job_dead', 'job_schedule']),
    ('reader', 'table', 'select', array['job_queue', 'job_lease', 'job_worker']),
    ('owner', 'table', 'all', array['stream', 'stream_state', 'stream_source', 'stream_change', 'stream_buffer', 'stream_plan', 'stream_statement', 'stream_text']),
    ('owner', 'table', 'all', array['stream_cleaned', 'stream_snapshot', 'stream_immediate']),
    ('reader', 'table', 'select', array['stream_history', 'pgt_stream_tables', 'stream_tables_info']),
    ('owner', 'sequence', 'all', array['revisions'])
  ) as p (kind, object_type, privileges, names);

insert into tide.permission (kind, object_type, schema, object, privileges)
select 'reader', 'table', 'pgtrickle', unnest(array['pgt_stream_tables', 'stream_tables_info']), 'select';
