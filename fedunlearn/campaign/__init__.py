"""What a scenario makes happen: hospitals, requests in time, references, strategies, further questions to models."""
