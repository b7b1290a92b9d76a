"""What a run keeps on the disk, and how nothing of it is lost."""
