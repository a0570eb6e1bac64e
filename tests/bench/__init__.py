"""What has a budget, measured: `./dev bench`. Nothing here passes or fails a test; machines differ, ratios stay."""
