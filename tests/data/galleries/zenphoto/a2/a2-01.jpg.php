<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Gallery</title></head>
<body class="">
<div id="main"><div id="gallerytitle"><div class="imgnav"><div class="imgnext"><a href="/a2/a2-02.jpg.php" title="Next Image">next »</a></div></div></div><div id="image"><strong><a href="/albums/a2/a2-01.jpg" title="a2-01"><img src="/cache/a2/a2-01_595.jpg" width="595"></a></strong></div></div>
</body></html>
