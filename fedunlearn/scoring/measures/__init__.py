"""What a model is measured by; `catalogue` lists it all."""
