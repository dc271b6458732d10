"""The API: `uvicorn src.main:app`."""

import gc

from src.wiring import create_app

app = create_app()

gc.collect()
gc.freeze()  # what is there now stays: to go through it again would be a long pause for nothing
