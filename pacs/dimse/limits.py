"""What one peer, and all peers together, may take of us (dimse.md 2). Tests inject short deadlines."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the door. Seconds and bytes unless the name says otherwise."""

    max_pdu: int = 131_072  # the longest P-DATA-TF variable field that we announce and take
    max_associate_pdu: int = 262_144  # 128 contexts with every transfer syntax of the standard are 180 KB
    max_command: int = 16_384
    max_identifier: int = 1_048_576
    receive_buffer: int = 262_144  # one per reactor, not one per association
    held_bytes: int = 262_144  # read while an earlier message of the association is unanswered
    answers: int = 50_000  # to one query; then it ends as a cancelled one does, with 0xFE00
    output_high: int = 262_144  # above it no request of the association is read
    output_low: int = 16_384  # below it a query makes its next answers
    operations: int = 16  # asynchronous operations window, PS3.7 D.3.3.3

    artim: float = 5.0  # connect to the whole A-ASSOCIATE-RQ; our last word to their close (PS3.8 9.1.5)
    pdu: float = 30.0  # first to last byte of one PDU
    network: float = 30.0  # a reader that does not read
    idle: float = 600.0  # an association without a message
    linger: float = 1.0  # an abort's way to the peer
    drain: float = 15.0  # messages under way when we stop
    sweep: float = 0.25  # how often deadlines are looked at

    sockets: int = 1_024  # above it the oldest socket without an association makes room
    associations: int = 200
    reserved: int = 50  # of those, for peers of peers.toml
    per_address: int = 64
    workers: int = 4  # threads for queries and refusals
    retrievals: int = 64  # under way at a time, a thread each; more of them wait
    response: float = 120.0  # a request of ours without its response
