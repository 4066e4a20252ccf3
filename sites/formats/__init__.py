"""Reading image files: what their headers claim, their pixels, volumes with label maps."""
