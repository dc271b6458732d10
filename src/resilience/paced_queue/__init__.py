"""The paced queue."""

from .failover import FailoverPaceStore
from .held_slot import HeldSlot
from .memory import MemoryPaceStore
from .options import PacedQueueOptions, QueuePolicy, check_policy
from .policy import PacedQueue
from .store import Offer, PaceStatus, PaceStore, Slot, SlotDecision
from .waiting_queue import QueuePlace, WaitingQueue

__all__ = [
    "FailoverPaceStore",
    "HeldSlot",
    "MemoryPaceStore",
    "Offer",
    "PaceStatus",
    "PaceStore",
    "PacedQueue",
    "PacedQueueOptions",
    "QueuePlace",
    "QueuePolicy",
    "Slot",
    "SlotDecision",
    "WaitingQueue",
    "check_policy",
]
