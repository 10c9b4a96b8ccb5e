<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Gallery</title></head>
<body class="">
<div id="main"><div id="gallerytitle"><div class="imgnav"></div></div><div id="image"><strong><a href="/albums/a3/a3-03.jpg" title="a3-03"><img src="/cache/a3/a3-03_595.jpg" width="595"></a></strong></div></div>
</body></html>
