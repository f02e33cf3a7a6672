// Files that the bundler includes in the page's style sheet.
declare module "*.css";
