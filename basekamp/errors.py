"""Every error that a user can meet, as one tree.

BasekampError
├── InputError      what the user gave cannot be used (also a ValueError)
├── DeviceError     a device was asked for that this machine does not have
└── StoreError      the store cannot be reached, read or written
    ├── KeyExistsError     the key already holds other bytes; records are never overwritten
    ├── KeyMissingError    nothing lies under the key
    ├── ChecksumError      what was read is not what was written
    └── StoreDownError     the store does not answer now, and may later
        └── ResultsWaitError   so what was trained waits on this machine for `basekamp sync`; exit code 3

Each message is one sentence: what was got, what is allowed, what to do.
"""


class BasekampError(Exception):
    """The root: the command line prints its message and exits with `exit_code`."""

    exit_code = 2


class InputError(BasekampError, ValueError):
    """What the user gave cannot be used."""


class DeviceError(BasekampError):
    """A device was asked for that this machine does not have."""


class StoreError(BasekampError):
    """The store cannot be reached, read or written."""


class KeyExistsError(StoreError):
    """The key already holds other bytes; records are never overwritten."""


class KeyMissingError(StoreError):
    """Nothing lies under the key."""


class ChecksumError(StoreError):
    """What was read is not what was written."""


class StoreDownError(StoreError):
    """The store does not answer now, and may later."""


class ResultsWaitError(StoreDownError):
    """The store is down, and what was trained waits on this machine for `basekamp sync`."""

    exit_code = 3
