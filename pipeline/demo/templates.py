"""The templates and the style sheet of the site."""

from __future__ import annotations

BASE = """<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{% block title %}The Shell Cabinet{% endblock %}</title>
  <link rel="stylesheet" href="{{ up }}assets/style.css">
  {% block links %}{% endblock %}
</head>
<body>
<header class="site-header">
  <a class="home" href="{{ up }}index.html">
    <img class="logo" src="{{ up }}assets/logo.png" width="48" height="48" alt="">
    <span>The Shell Cabinet</span>
  </a>
  <nav class="site-nav" aria-label="Site">
    <a href="{{ up }}index.html">Collection</a>
    <a href="{{ up }}reserve/index.html">Reserve</a>
  </nav>
</header>
<main>
{% block main %}{% endblock %}
</main>
<footer class="site-footer">
  <p>{{ layout.count }} specimens of {{ layout.species | length }} species.</p>
  <p class="social">
    <a href="{{ up }}index.html"><img src="{{ up }}assets/icon-post.png" width="24" height="24"
      alt="Newsletter"></a>
    <a href="{{ up }}index.html"><img src="{{ up }}assets/icon-photo.png" width="24" height="24"
      alt="Pictures"></a>
  </p>
</footer>
</body>
</html>
"""

INDEX = """{% extends "base" %}
{% block title %}The Shell Cabinet{% if number > 1 %}, page {{ number }}{% endif %}{% endblock %}
{% block links %}
{%- if number > 1 %}<link rel="prev" href="{{ up }}{{ index_path(number - 1) }}">{% endif %}
{%- if number < last %}<link rel="next" href="{{ up }}{{ index_path(number + 1) }}">{% endif %}
{%- endblock %}
{% block main %}
<h1>Sea shells of ten families</h1>
<p class="lede">Each is drawn by computer from the way its kind grows, all in the same light.</p>
{% if featured %}
<aside class="featured">
  {% set campaign = "?utm_source=front&utm_medium=web" %}
  <a class="specimen" href="{{ up }}{{ featured.path('full') }}{{ campaign }}">
    <img src="{{ up }}{{ featured.path('medium') }}" width="160" height="160"
      alt="{{ featured.species.name }}"></a>
  <div>
    <h2>Shell of the week</h2>
    <p><a href="{{ up }}species/{{ featured.species.slug }}.html">
      <i>{{ featured.species.name }}</i></a></p>
  </div>
</aside>
{% endif %}
<ul class="species-list">
{% for page in listed %}
  <li class="species-card">
    <a href="{{ up }}{{ page.path }}">
      <img src="{{ up }}{{ page.specimens[0].path('medium') }}" width="160" height="160" alt="">
      <i class="species-name">{{ page.species.name }}</i></a>
    <span class="family">{{ page.species.family.label }}</span>
  </li>
{% endfor %}
{% for gone in dead %}
  <li class="species-card">
    <a href="{{ up }}species/{{ gone.slug }}.html"><i class="species-name">{{ gone.name }}</i></a>
    <span class="family">{{ gone.family.label }}</span>
  </li>
{% endfor %}
</ul>
<nav class="pagination" aria-label="Pages">
{% if number > 1 %}
<a class="previous" rel="prev" href="{{ up }}{{ index_path(number - 1) }}">Previous</a>
{% endif %}
<span>Page {{ number }} of {{ last }}</span>
{% if number < last %}
<a class="next" rel="next" href="{{ up }}{{ index_path(number + 1) }}">Next</a>
{% endif %}
</nav>
{% endblock %}
"""

SPECIES = """{% extends "base" %}
{% from "picture" import picture, thumb %}
{% block title %}{{ page.species.name }} | The Shell Cabinet{% endblock %}
{% block main %}
<article class="species">
  <h1 class="species-name">{{ page.species.name }}</h1>
  <p class="taxon">Family: <span class="family">{{ page.species.family.label }}</span></p>
  <p class="description">{{ page.species.description }}</p>
  <div class="specimens">
  {% for one in page.specimens %}
    <figure>
      <a class="specimen" href="{{ up }}{{ one.path('full') }}{{ tag(page, loop.index) }}">
        {{- picture(one, page.style, up, placeholder) -}}
      </a>
      <figcaption>Specimen {{ loop.index }}</figcaption>
    </figure>
  {% endfor %}
  {% for path in page.lost %}
    <figure>
      <a class="specimen" href="{{ up }}{{ path }}">
        {{- thumb(page.specimens[0], up) }}</a>
      <figcaption>Holotype</figcaption>
    </figure>
  {% endfor %}
  {% for path in page.disguised %}
    <figure>
      <a class="specimen" href="{{ up }}{{ path }}">
        {{- thumb(page.specimens[0], up) }}</a>
      <figcaption>Original plate</figcaption>
    </figure>
  {% endfor %}
  {% for one in page.reserve %}
    <figure>
      <a class="specimen" href="{{ up }}{{ one.path('full') }}">Type specimen, in the reserve</a>
    </figure>
  {% endfor %}
  </div>
  <p class="rights">
  {% if page.species.licence.url %}
    Images: <span class="credit">{{ page.species.credit }}</span>,
    <a rel="license" href="{{ page.species.licence.url }}">{{ page.species.licence.name }}</a>
  {% else %}
    Images: <span class="credit">{{ page.species.credit }}</span>.
    <span class="license">{{ page.species.licence.name }}</span>
  {% endif %}
  </p>
</article>
{% if page.style == "lazy" %}
<script>
  for (const image of document.querySelectorAll("img.lazy")) image.src = image.dataset.src;
</script>
{% endif %}
{% if page.also %}
<aside class="see-also">
  <h2>Compare</h2>
  {% for one in page.also %}
  <a class="related" href="{{ up }}{{ one.path('full') }}">
    {{- thumb(one, up) }}</a>
  <p><a href="{{ up }}species/{{ one.species.slug }}.html"><i>{{ one.species.name }}</i></a></p>
  {% endfor %}
</aside>
{% endif %}
{% endblock %}
"""

PICTURE = """{% macro thumb(one, up) -%}
<img src="{{ up }}{{ one.path('thumb') }}" width="96" height="96" alt="{{ one.species.name }}">
{%- endmacro %}
{% macro picture(one, style, up, placeholder) -%}
{% set name = one.species.name %}
{% if style == "srcset" -%}
<img src="{{ up }}{{ one.path('thumb') }}" sizes="96px" width="96" height="96" alt="{{ name }}"
  srcset="{{ up }}{{ quoted(one.path('thumb')) }} 96w,
    {{ up }}{{ quoted(one.path('medium')) }} 160w,
    {{ up }}{{ quoted(one.path('full')) }} 256w">
{%- elif style == "lazy" -%}
<img class="lazy" src="{{ placeholder }}" data-src="{{ up }}{{ one.path('thumb') }}"
  loading="lazy" width="96" height="96" alt="{{ name }}">
  <noscript>{{ thumb(one, up) }}</noscript>
{%- elif style == "picture" -%}
<picture>
  <source media="(min-width: 60em)" srcset="{{ up }}{{ quoted(one.path('medium')) }}">
  {{ thumb(one, up) }}
</picture>
{%- elif style == "blur" -%}
<img src="{{ up }}{{ one.path('thumb') }}" loading="lazy" decoding="async" width="96" height="96"
  style="background: #efeeeb url({{ placeholder }})" alt="{{ name }}">
{%- else -%}
{{ thumb(one, up) }}
{%- endif %}
{%- endmacro %}
"""

RESERVE = """{% extends "base" %}
{% block title %}Reserve | The Shell Cabinet{% endblock %}
{% block main %}
<h1>Reserve</h1>
<p class="lede">Type specimens kept for study. Please do not copy this section by machine.</p>
<div class="specimens">
{% for one in layout.reserve %}
  <figure>
    <a class="specimen" href="full/{{ one.file }}">
      <img src="thumb/{{ one.file }}" width="96" height="96" alt="{{ one.species.name }}"></a>
    <figcaption><i>{{ one.species.name }}</i></figcaption>
  </figure>
{% endfor %}
</div>
{% endblock %}
"""

NOTICE = """{% extends "base" %}
{% block title %}{{ title }} | The Shell Cabinet{% endblock %}
{% block main %}
<h1>{{ title }}</h1>
<p class="lede">{{ text }}</p>
<p><a href="{{ up }}index.html">Back to the collection</a></p>
{% endblock %}
"""

STYLE = """
:root { --ink: #2b2a28; --soft: #6d6a64; --line: #dedbd4; --paper: #fbfaf8; --sea: #1d5c6b; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 0 1.25rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 Georgia, "Times New Roman", serif; }
a { color: var(--sea); text-underline-offset: 0.15em; }
h1 { font-weight: normal; font-size: 2rem; line-height: 1.2; margin: 2rem 0 0.5rem; }
h1.species-name { font-style: italic; }
h2 { font-weight: normal; font-size: 1.2rem; margin: 0 0 0.5rem; }
.site-header { display: flex; align-items: center; justify-content: space-between; gap: 1rem;
  padding: 1rem 0; border-bottom: 1px solid var(--line); }
.home { display: flex; align-items: center; gap: 0.75rem; color: inherit; font-size: 1.2rem;
  text-decoration: none; }
.site-nav a { margin-left: 1rem; }
.lede, .description { max-width: 40rem; }
.taxon, .family, figcaption, .site-footer { color: var(--soft); font-size: 0.9rem; }
.species-list, .specimens { display: grid; gap: 1.25rem; margin: 1.5rem 0; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); list-style: none; }
.specimens { grid-template-columns: repeat(auto-fill, minmax(6rem, 8rem)); }
.species-card { display: flex; flex-direction: column; }
.species-card a { display: flex; flex-direction: column; gap: 0.4rem; text-decoration: none; }
.species-card img, .specimen img, .related img { display: block; box-sizing: content-box;
  border: 1px solid var(--line); border-radius: 4px; background: #f2f0ed; }
.species-card img { box-sizing: border-box; width: 100%; max-width: 10rem; height: auto; }
.site-header .logo { border-radius: 50%; }
figure { margin: 0; }
.featured, .see-also { margin: 1.5rem 0; padding: 1rem; border: 1px solid var(--line);
  border-radius: 6px; background: #fff; }
.featured { display: flex; flex-wrap: wrap; gap: 1.25rem; align-items: center; }
.rights { border-top: 1px solid var(--line); padding-top: 1rem; }
.pagination { display: flex; gap: 1.5rem; margin: 2rem 0; align-items: baseline; }
.site-footer { display: flex; justify-content: space-between; align-items: center;
  border-top: 1px solid var(--line); margin-top: 3rem; padding: 1rem 0 2rem; }
.social a { margin-left: 0.75rem; }
"""
