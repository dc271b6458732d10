"""The keys of metrics in Redis. Every key of type t begins with ``m:{t}:``.

=======================  =====================================================================================
``r:<hour>``             string: the head, the first points of the hour in order of arrival, 14 bytes each
``r:<hour>:<minute>``    string: the points of one minute (0 to 59) that came after the head was closed
``n:<hour>``             string: 60 rollup records, of the points of each minute outside the head. It exists
                         exactly if the head is closed.
``h:<day>``              string: 24 rollup records, by hour
``d``                    hash: rollup records by day, and of all points (``all``); ``open``: the newest minute
                         that was written; ``labelled``, if any point had labels; ``preparing``, while a type
                         of many hours gets its first labels: the generation and the last hour noted in ``u``;
                         ``generation``: a number that each deletion changes, and that no other type or time
                         has
``p:m:<minute>``         string: the sketch of one minute, if it has many points outside the head; 26 hours
``p:h:<hour>``           string: the sketch of one hour, from 64 points on
``p:d:<day>``, ``p:all`` string: the sketches of one day, and of all points
``s``                    hash: the series dictionary, from labels to number; ``#``: its version; from ``-``
                         and a retired number to its labels
``q:<hour>``, ``q:all``  string: blocks of series, of one hour and of all hours. After a deletion ``q:all`` is
                         only a version, until it is merged again.
``u``                    hash: by hour, how many points no block of series has yet
``hours``                sorted set: the hours that have points
``x``, ``w:<minute>``    string: of a deletion its lease, and the points of an hour that it keeps (-1: head)
=======================  =====================================================================================

Besides these, ``types`` is a sorted set of all types by their latest timestamp, ``idem:<digest>`` an
idempotency record, and ``m:layout`` the version of this layout. Days, hours and minutes are numbered from
1970 on.

A sketch begins with a header of 8 bytes: how many of the bucket's first points it leaves out, and the length
of its compacted part; entries follow.

A point's place is its index in the head, or `HEAD_POINTS` plus its index in its minute. Of equal timestamps,
the one with the greater place arrived later.
"""

import struct

HEAD_POINTS = 1024
HEAD = -1
"""Stands for the head of an hour, where its minutes are numbered from 0 on."""
SKETCH_HEADER = struct.Struct("<II")


def key_of(metric_type: str, suffix: str) -> str:
    """Return one of the keys of a type."""
    return f"m:{{{metric_type}}}:{suffix}"
