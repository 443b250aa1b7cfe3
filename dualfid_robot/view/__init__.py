"""What a person looks at: scenes, videos, and pages in a browser."""
