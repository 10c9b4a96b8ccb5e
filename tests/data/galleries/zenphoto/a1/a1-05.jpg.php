<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Gallery</title></head>
<body class="">
<div id="main"><div id="gallerytitle"><div class="imgnav"></div></div><div id="image"><strong><a href="/albums/a1/a1-05.jpg" title="a1-05"><img src="/cache/a1/a1-05_595.jpg" width="595"></a></strong></div></div>
</body></html>
