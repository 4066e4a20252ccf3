"""A year of requests, scored over time: answers against deadlines, memory, quality and cost, boundary by boundary."""
