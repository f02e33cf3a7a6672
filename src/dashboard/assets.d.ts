// What the bundler takes into the page's style sheet.
declare module "*.css";
