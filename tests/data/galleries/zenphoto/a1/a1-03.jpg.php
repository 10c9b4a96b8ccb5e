<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Gallery</title></head>
<body class="">
<div id="main"><div id="gallerytitle"><div class="imgnav"><div class="imgnext"><a href="/a1/a1-04.jpg.php" title="Next Image">next »</a></div></div></div><div id="image"><strong><a href="/albums/a1/a1-03.jpg" title="a1-03"><img src="/cache/a1/a1-03_595.jpg" width="595"></a></strong></div></div>
</body></html>
