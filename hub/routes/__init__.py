"""The REST calls, one class for each group of them; all run on the hub's one asyncio loop."""
