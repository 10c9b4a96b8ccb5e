<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Gallery</title></head>
<body class="">
<table class="maintable"><tr><td class="catlink"><a href="thumbnails.php?album=0"><img src="albums/cones/thumb_cones-01.jpg" class="image"></a></td><td><a href="thumbnails.php?album=0">cones</a></td></tr><tr><td class="catlink"><a href="thumbnails.php?album=1"><img src="albums/whelks/thumb_whelks-01.jpg" class="image"></a></td><td><a href="thumbnails.php?album=1">whelks</a></td></tr><tr><td class="catlink"><a href="thumbnails.php?album=2"><img src="albums/cowries/thumb_cowries-01.jpg" class="image"></a></td><td><a href="thumbnails.php?album=2">cowries</a></td></tr></table><a href="login.php">Login</a><div class="footer">Powered by <a href="http://coppermine.example/">Coppermine</a></div>
</body></html>
