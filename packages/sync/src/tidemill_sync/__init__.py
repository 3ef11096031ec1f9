"""Mirror objects between S3, GCS, Azure and local folders, exactly and resumably."""
