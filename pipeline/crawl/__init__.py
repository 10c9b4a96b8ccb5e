"""The crawl stage: from the pages of a site to the URL manifest."""
