window.MathJax = {
  tex: { inlineMath: [["\\(", "\\)"]], displayMath: [["\\[", "\\]"]] },
  options: { ignoreHtmlClass: ".*", processHtmlClass: "arithmatex" },
};

// pages are swapped without a reload
document$.subscribe(() => window.MathJax.typesetPromise && window.MathJax.typesetPromise());
