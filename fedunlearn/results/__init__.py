"""What a run leaves and shows: its folder, audit log, tables, pictures and report."""
