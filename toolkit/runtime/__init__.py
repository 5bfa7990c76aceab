"""What runs in a service: batches, the transaction of a batch, external calls, the relay and the background loops.

An event's way through, in six files:

1. `batcher`: collects deliveries into a batch, and settles them after its commit.
2. `executor`: the batch's transaction.
3. `dispatch`: by the fence, what each message does: a step, its compensation, a note, nothing.
4. `step_runner`: runs the function, optimistically or in a savepoint.
5. `unit_of_work`: what the transaction writes: entries, outgoing rows, dead letters.
6. `relay`: publishes the outgoing rows, and deletes those that the broker has stored.

After a failure: `failed_attempts` (of a step), `failed_batches` (of a transaction), `poison_isolation` (of a process).
Joins are in `join_dispatch`, coordinators in `coordination`, calls to outside systems in `external_calls`.
"""
