"""A small world in which every race can be made to happen: the real flows, on a model of Redis, one step at a time.

model      the server: what our commands do, one at a time
queues     where writes wait, on that server
network    how an effect becomes commands on a fenced connection, and what can go wrong on the way
process    what one process of the cache knows: the real place, with a clock and a heart in the world's hand
caller     one thread or task: the real flow, performed step by step
jobs       what callers do: read, invalidate, write, refresh
behind     what they do behind a function: have a write wait, deliver it, give it up
ledger     the truth: who loaded when, what may still be returned, how many loaders run
table      the database behind a queue: what it holds, and what is on its way there
faults     what the world may do to them
world      who moves next, until all have ended
schedule   how that is decided: by bytes (from hypothesis, or a seed), or every way there is
stage      callers moved by hand, for transcripts
mutants    the cache with one rule switched off; mutants_behind the same for what is written behind
"""
