"""What appbox keeps on disk: bundles, generations, ranges, the lock and the journal."""
