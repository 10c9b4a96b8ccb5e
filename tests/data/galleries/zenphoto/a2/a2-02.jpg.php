<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Gallery</title></head>
<body class="">
<div id="main"><div id="gallerytitle"><div class="imgnav"></div></div><div id="image"><strong><a href="/albums/a2/a2-02.jpg" title="a2-02"><img src="/cache/a2/a2-02_595.jpg" width="595"></a></strong></div></div>
</body></html>
