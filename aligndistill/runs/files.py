"""The names of the files in a run's folder that several modules read or write."""

PLAN, EVENTS = "plan.json", "events.jsonl"
SPENT, SERVERS = "spent.jsonl", "servers.json"
