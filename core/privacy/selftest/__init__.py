"""The custodian's self-test: does the engine on this machine do what the bound assumes?

Every check drives the code that trains, on made-up data, from outside; every check must
also see faults made on purpose (`controls.py`), or its silence means nothing. It reads
no image, and no ledger but its own.
"""
